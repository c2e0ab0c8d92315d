//! Pictures of one size without compression, plane after plane, at equal
//! distances in a file or in memory.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Opened, Source, read_extent};
use crate::data::decode::Picture;

/// Where bytes are.
pub enum Bytes {
    File(PathBuf),
    /// Of an archive that cannot be read in place.
    Memory(Vec<u8>),
}

/// One file of records.
pub struct RecordFile {
    /// Without its folder.
    pub name: String,
    pub bytes: Bytes,
    /// Where the first picture begins, and how many bytes the next is on.
    pub first: u64,
    pub stride: u64,
    /// One for each record.
    pub labels: Vec<Option<u32>>,
}

/// How a record's pixels lie.
#[derive(Clone, Copy)]
pub struct Form {
    /// Side of the square pictures.
    pub px: u32,
    /// Whether a plane is stored column after column.
    pub columns_first: bool,
}

impl Form {
    /// Bytes of a picture.
    pub fn bytes(self) -> u64 {
        3 * u64::from(self.px) * u64::from(self.px)
    }

    /// Three planes to pixels.
    fn picture(self, planes: &[u8]) -> Result<Picture> {
        let px = self.px as usize;
        let mut rgb = vec![0; planes.len()];
        for (plane, values) in planes.chunks_exact(px * px).enumerate() {
            for (at, &value) in values.iter().enumerate() {
                let pixel = match self.columns_first {
                    true => at % px * px + at / px,
                    false => at,
                };
                rgb[3 * pixel + plane] = value;
            }
        }
        Picture::new(self.px, self.px, rgb)
    }
}

struct Records {
    kind: &'static str,
    form: Form,
    files: Vec<RecordFile>,
    /// Per picture: file, record in it.
    places: Vec<(u32, u32)>,
}

/// The files' records in their order.
pub fn open(
    kind: &'static str,
    form: Form,
    files: Vec<RecordFile>,
    classes: Vec<String>,
) -> Opened {
    let of_file = |(file, records): (usize, &RecordFile)| {
        (0..records.labels.len() as u32).map(move |record| (file as u32, record))
    };
    let places = files.iter().enumerate().flat_map(of_file).collect();
    let source = Box::new(Records {
        kind,
        form,
        files,
        places,
    });
    Opened { source, classes }
}

impl Source for Records {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn kind(&self) -> String {
        self.kind.into()
    }

    fn name(&self, index: usize) -> String {
        let (file, record) = self.places[index];
        format!("{}#{record:05}", self.files[file as usize].name)
    }

    fn label(&self, index: usize) -> Option<u32> {
        let (file, record) = self.places[index];
        self.files[file as usize].labels[record as usize]
    }

    fn size(&self, index: usize) -> Result<u64> {
        Ok(self.files[self.places[index].0 as usize].stride)
    }

    fn decode(&self, index: usize, _: bool) -> Result<Picture> {
        let (file, record) = self.places[index];
        let file = &self.files[file as usize];
        let start = file.first + u64::from(record) * file.stride;
        match &file.bytes {
            Bytes::File(path) => {
                let planes = read_extent(path, start, self.form.bytes())?;
                self.form.picture(&planes)
            }
            Bytes::Memory(bytes) => {
                let start = start as usize;
                let planes = bytes.get(start..start + self.form.bytes() as usize);
                self.form
                    .picture(planes.context("the record is cut short")?)
            }
        }
    }
}

//! CIFAR-10 and CIFAR-100 in their binary versions (Krizhevsky 2009): records
//! of one label byte (CIFAR-100: coarse, then fine) and 32 x 32 red, green
//! and blue values, plane after plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Opened, Source, read_extent};
use crate::bad_input;
use crate::data::dataset::Part;
use crate::data::decode::Picture;

const SIDE: u32 = 32;
const PLANE: usize = (SIDE * SIDE) as usize;

/// Folders that the published archives unpack to.
const FOLDERS: [&str; 3] = ["", "cifar-10-batches-bin", "cifar-100-binary"];

#[derive(Clone, Copy)]
enum Version {
    Cifar10,
    Cifar100,
}

impl Version {
    /// Bytes before the pixels; the last is the label (of CIFAR-100, the
    /// fine one).
    fn label_bytes(self) -> u64 {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    fn record_bytes(self) -> u64 {
        self.label_bytes() + 3 * PLANE as u64
    }

    fn classes(self) -> u8 {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "CIFAR-10",
            Self::Cifar100 => "CIFAR-100",
        }
    }

    /// The published list of class names.
    fn names_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }
}

struct Cifar {
    version: Version,
    files: Vec<PathBuf>,
    /// Per picture: file, record in it, label.
    records: Vec<(u32, u32, u8)>,
}

/// The folder of binary files at or directly below `path`, if there is one.
pub fn find(path: &Path) -> Option<PathBuf> {
    let below = FOLDERS.iter().map(|folder| path.join(folder));
    below
        .into_iter()
        .find(|folder| !part_files(folder, Part::All).is_empty())
}

fn part_files(folder: &Path, part: Part) -> Vec<PathBuf> {
    let batches = (1..=5).map(|i| format!("data_batch_{i}.bin"));
    let train = batches.chain(["train.bin".into()]);
    let test = ["test_batch.bin".to_owned(), "test.bin".into()];
    let names: Vec<String> = match part {
        Part::All => train.chain(test).collect(),
        Part::Train => train.collect(),
        Part::Test => test.into(),
    };
    let paths = names.iter().map(|name| folder.join(name));
    paths.filter(|path| path.is_file()).collect()
}

/// Opens a folder that [`find`] gave; `None` if it lacks that part.
///
/// # Errors
/// As [`open_files`].
pub fn open_folder(folder: &Path, part: Part) -> Result<Option<Opened>> {
    let files = part_files(folder, part);
    if files.is_empty() {
        return Ok(None);
    }
    open_files(files).map(Some)
}

/// Opens binary files of one version, told by the first one's name, else by
/// its length.
///
/// # Errors
/// [`bad_input!`] if a file has another length than whole records, or a
/// label out of range.
pub fn open_files(files: Vec<PathBuf>) -> Result<Opened> {
    let version = detect(&files[0])?;
    let mut records = Vec::new();
    for (file, path) in files.iter().enumerate() {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let record = version.record_bytes() as usize;
        if bytes.is_empty() || bytes.len() % record != 0 {
            return Err(bad_input!(
                "{} has {} bytes: expected whole records of {record} ({}); it is cut short, \
                 or not the binary version",
                path.display(),
                bytes.len(),
                version.name()
            ));
        }
        for (at, record) in bytes.chunks_exact(record).enumerate() {
            let label = record[version.label_bytes() as usize - 1];
            if label >= version.classes() {
                return Err(bad_input!(
                    "record {at} of {} has label {label}: {} has {} classes; the file is broken",
                    path.display(),
                    version.name(),
                    version.classes()
                ));
            }
            records.push((file as u32, at as u32, label));
        }
    }
    let classes = class_names(&files[0], version);
    let source = Box::new(Cifar {
        version,
        files,
        records,
    });
    Ok(Opened { source, classes })
}

fn detect(path: &Path) -> Result<Version> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("batch") {
        return Ok(Version::Cifar10);
    }
    if name == "train.bin" || name == "test.bin" {
        return Ok(Version::Cifar100);
    }
    let len = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    [Version::Cifar10, Version::Cifar100]
        .into_iter()
        .find(|version| len > 0 && len.is_multiple_of(version.record_bytes()))
        .ok_or_else(|| {
            bad_input!(
                "{} has {len} bytes: expected a CIFAR file of whole records, of {} bytes \
                 (CIFAR-10) or {} (CIFAR-100)",
                path.display(),
                Version::Cifar10.record_bytes(),
                Version::Cifar100.record_bytes()
            )
        })
}

/// The names that stand beside the files, else the labels' numbers.
fn class_names(file: &Path, version: Version) -> Vec<String> {
    let count = usize::from(version.classes());
    let text = fs::read_to_string(file.with_file_name(version.names_file())).unwrap_or_default();
    let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if names.len() == count {
        names
    } else {
        (0..count).map(|label| label.to_string()).collect()
    }
}

impl Source for Cifar {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn kind(&self) -> String {
        self.version.name().into()
    }

    fn name(&self, index: usize) -> String {
        let (file, record, _) = self.records[index];
        let path = &self.files[file as usize];
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}#{record:05}")
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(u32::from(self.records[index].2))
    }

    fn size(&self, _: usize) -> Result<u64> {
        Ok(self.version.record_bytes())
    }

    fn decode(&self, index: usize, _: bool) -> Result<Picture> {
        let (file, record, _) = self.records[index];
        let start = u64::from(record) * self.version.record_bytes() + self.version.label_bytes();
        let planes = read_extent(&self.files[file as usize], start, 3 * PLANE as u64)?;
        let mut rgb = vec![0; 3 * PLANE];
        for (plane, values) in planes.chunks_exact(PLANE).enumerate() {
            for (pixel, &value) in values.iter().enumerate() {
                rgb[3 * pixel + plane] = value;
            }
        }
        Picture::new(SIDE, SIDE, rgb)
    }
}

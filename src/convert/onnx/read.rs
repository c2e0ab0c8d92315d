//! The weights of an ONNX model that we wrote, read back: a walk over the
//! protobuf's fields that keeps names, shapes and places, and skips the rest.

use std::fs::File;
use std::io::{BufReader, Read};

use anyhow::{Context, Result, bail, ensure};

use super::proto::{EXTERNAL, Entry as Pair, FLOAT};
use super::{DATA_FILE, PREFIX};
use crate::checkpoint::Dtype;
use crate::convert::source::Entry;

/// Weights at most; a ViT-H has 390.
const MAX_WEIGHTS: usize = 1 << 14;

/// The longest text, in bytes.
const MAX_TEXT: u64 = 1 << 16;

/// What a model's file holds.
pub struct List {
    pub entries: Vec<Entry>,
    /// Of each entry: whether its data is in the second file, offset, length.
    pub places: Vec<(bool, u64, usize)>,
    /// Metadata.
    pub notes: Vec<(String, String)>,
}

/// Lists the weights of a model's file, without reading them.
///
/// # Errors
/// A file that is no ONNX model of ours.
pub fn list(file: File, bytes: u64) -> Result<List> {
    let mut walk = Walk {
        file: BufReader::new(file),
        at: 0,
    };
    let mut list = List {
        entries: Vec::new(),
        places: Vec::new(),
        notes: Vec::new(),
    };
    walk.fields(bytes, |walk, field, end| {
        match field {
            7 => walk.fields(end, |walk, field, end| match field {
                5 => walk.initializer(end, &mut list),
                _ => Ok(()),
            })?,
            14 if list.notes.len() < 64 => {
                let pair = walk.pair(end)?;
                list.notes.push((pair.key, pair.value));
            }
            _ => {}
        }
        Ok(())
    })
    .with_context(|| format!("it is no ONNX model, or a damaged one, at byte {}", walk.at))?;
    Ok(list)
}

struct Walk {
    file: BufReader<File>,
    at: u64,
}

impl Walk {
    /// Gives each field with a length, from here up to `end`, to `f`, with its
    /// number and where it ends; what `f` leaves of it is skipped.
    fn fields(
        &mut self,
        end: u64,
        mut f: impl FnMut(&mut Self, u64, u64) -> Result<()>,
    ) -> Result<()> {
        while self.at < end {
            let tag = self.varint()?;
            match tag & 7 {
                0 => drop(self.varint()?),
                1 => self.skip_to(self.at + 8, end)?,
                5 => self.skip_to(self.at + 4, end)?,
                2 => {
                    let length = self.varint()?;
                    let stop = self.at.checked_add(length).filter(|stop| *stop <= end);
                    let stop = stop.context("a field is longer than what it lies in")?;
                    f(self, tag >> 3, stop)?;
                    self.skip_to(stop, end)?;
                }
                kind => bail!("a field is of the kind {kind}"),
            }
        }
        ensure!(self.at == end, "a field is longer than what it lies in");
        Ok(())
    }

    /// A tensor: it is a weight of ours if it is f32 and named like one.
    fn initializer(&mut self, end: u64, list: &mut List) -> Result<()> {
        let (mut name, mut shape) = (String::new(), Vec::new());
        let (mut inside, mut pairs) = (None, Vec::new());
        let (mut data_type, mut location) = (0, 0);
        while self.at < end {
            let tag = self.varint()?;
            match (tag >> 3, tag & 7) {
                (1, 0) => {
                    ensure!(shape.len() < 8, "a tensor has over 8 dimensions");
                    shape.push(usize::try_from(self.varint()?)?);
                }
                (2, 0) => data_type = self.varint()?,
                (14, 0) => location = self.varint()?,
                (_, 0) => drop(self.varint()?),
                (field, 2) => {
                    let length = self.varint()?;
                    let stop = self.at.checked_add(length).filter(|stop| *stop <= end);
                    let stop = stop.context("a field is longer than its tensor")?;
                    match field {
                        8 => name = self.text(stop)?,
                        9 => inside = Some((self.at, usize::try_from(length)?)),
                        13 if pairs.len() < 8 => pairs.push(self.pair(stop)?),
                        _ => {}
                    }
                    self.skip_to(stop, end)?;
                }
                _ => bail!("a tensor has a field of an unknown kind"),
            }
        }
        if data_type != FLOAT as u64 || !name.starts_with(PREFIX) {
            return Ok(());
        }
        ensure!(
            list.entries.len() < MAX_WEIGHTS,
            "it has over {MAX_WEIGHTS} weights"
        );
        let place = match (inside, location == EXTERNAL as u64) {
            (Some((start, length)), false) => (false, start, length),
            (_, true) => {
                let find = |key: &str| pairs.iter().find(|pair| pair.key == key);
                let number = |key: &str| find(key).and_then(|pair| pair.value.parse().ok());
                ensure!(
                    find("location").is_some_and(|pair| pair.value == DATA_FILE),
                    "the data of {name} is not in {DATA_FILE}"
                );
                let (start, length) = (number("offset"), number("length"));
                let length = length.and_then(|length: u64| usize::try_from(length).ok());
                let place = start
                    .zip(length)
                    .map(|(start, length)| (true, start, length));
                place.with_context(|| format!("the place of {name} is not told"))?
            }
            (None, false) => bail!("{name} has no data"),
        };
        let elements = shape
            .iter()
            .try_fold(4usize, |n, dim: &usize| n.checked_mul(*dim));
        ensure!(
            elements == Some(place.2),
            "{name} has {} bytes, which is not what {shape:?} needs",
            place.2
        );
        list.entries.push(Entry {
            name,
            dtype: Dtype::F32,
            shape,
        });
        list.places.push(place);
        Ok(())
    }

    fn pair(&mut self, end: u64) -> Result<Pair> {
        let mut pair = Pair::default();
        self.fields(end, |walk, field, end| {
            match field {
                1 => pair.key = walk.text(end)?,
                2 => pair.value = walk.text(end)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(pair)
    }

    fn text(&mut self, end: u64) -> Result<String> {
        let length = end - self.at;
        ensure!(length <= MAX_TEXT, "a text has {length} bytes");
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact(&mut bytes)
            .context("it is cut short")?;
        self.at = end;
        String::from_utf8(bytes).context("a text is not UTF-8")
    }

    fn skip_to(&mut self, to: u64, end: u64) -> Result<()> {
        ensure!(
            to <= end && to >= self.at,
            "a field is longer than what it lies in"
        );
        self.file.seek_relative((to - self.at) as i64)?;
        self.at = to;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte).context("it is cut short")?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number has no end")
    }
}

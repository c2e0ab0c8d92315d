//! Where pictures come from: one file per kind of place.

mod archive;
pub mod cifar;
pub mod csv;
pub mod flowers;
pub mod folder;
pub mod imagenet;
mod listed;
pub mod pets;
mod records;
pub mod shards;
pub mod stl;
pub mod synthetic;
mod tars;
mod texture;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::bad_input;

use super::decode::Picture;

/// The largest picture file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Names that are taken for pictures, by their last extension. What they
/// hold is decided by their bytes.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "jpe", "png", "webp"];

/// Some ordered set of pictures with random access. Indices are below `len`.
pub trait Source: Send + Sync {
    fn len(&self) -> usize;
    /// What kind of place this is, and what else than names and sizes makes
    /// its pictures. Part of the fingerprint.
    fn kind(&self) -> String;
    /// Unique in the set; used in messages and in the fingerprint.
    fn name(&self, index: usize) -> String;
    fn label(&self, index: usize) -> Option<u32>;
    /// Bytes the picture takes where it is stored.
    fn size(&self, index: usize) -> Result<u64>;
    /// Reads and decodes one picture. Errors do not name it; the caller does.
    fn decode(&self, index: usize, exif_orientation: bool) -> Result<Picture>;
}

/// A source and the names of its classes, by label.
pub struct Opened {
    pub source: Box<dyn Source>,
    pub classes: Vec<String>,
}

/// Whether a file of this name is taken for a picture. Hidden files are not:
/// macOS leaves `._x.jpg` files that hold no picture.
fn is_picture_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
        && !is_hidden(path)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().first() == Some(&b'.'))
}

/// The class names in order, and each picture's label. Names that are all
/// whole numbers (WebDataset's) are ordered as numbers.
fn assign_labels(names: &[Option<String>]) -> (Vec<String>, Vec<Option<u32>>) {
    let distinct: BTreeSet<&String> = names.iter().flatten().collect();
    let mut classes: Vec<String> = distinct.into_iter().cloned().collect();
    let numbers: Option<Vec<u64>> = classes.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        classes.sort_by_key(|name| (name.parse::<u64>().ok(), name.clone()));
    }
    let label_of: std::collections::BTreeMap<&String, u32> = classes.iter().zip(0..).collect();
    let labels = names
        .iter()
        .map(|name| name.as_ref().map(|name| label_of[name]))
        .collect();
    (classes, labels)
}

/// Refuses a published data set that lacks some of its files.
///
/// # Errors
/// [`bad_input!`] with what is missing of `names`, and how to get it.
fn half_there(
    set: &str,
    get: &str,
    place: &Path,
    names: &[&str],
    is_there: impl Fn(&str) -> bool,
) -> Result<()> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_there(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(bad_input!(
        "{} has a part of {set}, but not {}; expected {}. Unpack the whole archive, or run \
         `xla-moco data get {get}`",
        place.display(),
        missing.join(", "),
        names.join(", ")
    ))
}

/// A file that must not be larger than it should be.
fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    let file = File::open(path).with_context(reading)?;
    let len = file.metadata().with_context(reading)?.len();
    if len > limit {
        return Err(bad_input!(
            "{} has {len} bytes; expected at most {limit}",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    Ok(bytes)
}

/// The words of a published list of class names, if they are as many as there
/// are classes; else the numbers from `first` on.
fn names_or_numbers(list: &[u8], count: usize, first: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(list);
    let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match names.len() == count {
        true => names,
        false => (first..first + count).map(|n| n.to_string()).collect(),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Reads `len` bytes of a file, from `offset` on.
fn read_extent(path: &Path, offset: u64, len: u64) -> Result<Vec<u8>> {
    ensure!(
        len <= MAX_FILE_BYTES,
        "the file has {len} bytes; the limit for one picture is {MAX_FILE_BYTES}"
    );
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    file.seek(SeekFrom::Start(offset)).with_context(reading)?;
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(len)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    if bytes.len() as u64 != len {
        bail!(
            "expected {len} bytes at {offset} of {}, found {}: the file shrank",
            path.display(),
            bytes.len()
        );
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_by_name_or_by_number() {
        let some = |names: &[&str]| -> Vec<Option<String>> {
            names.iter().map(|n| Some(n.to_string())).collect()
        };
        let (classes, labels) = assign_labels(&some(&["dog", "cat", "dog"]));
        assert_eq!(classes, ["cat", "dog"]);
        assert_eq!(labels, [Some(1), Some(0), Some(1)]);
        let (classes, labels) = assign_labels(&some(&["10", "9"]));
        assert_eq!(classes, ["9", "10"]);
        assert_eq!(labels, [Some(1), Some(0)]);
        assert_eq!(assign_labels(&[None]), (vec![], vec![None]));
    }

    #[test]
    fn picture_names() {
        for (name, expected) in [
            ("a.jpg", true),
            ("a.b.JPEG", true),
            ("a.webp", true),
            ("._a.jpg", false),
            ("a.txt", false),
            ("jpg", false),
        ] {
            assert_eq!(is_picture_name(Path::new(name)), expected, "{name}");
        }
    }
}

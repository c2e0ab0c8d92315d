//! STL-10 in its binary version (Coates, Lee and Ng, AISTATS 2011): 96 x 96
//! pixels, plane after plane, each stored column after column; labels from 1
//! on in files of their own; 100,000 pictures without labels.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::records::{self, Bytes, Form, RecordFile};
use super::{Opened, half_there, names_or_numbers, read_small};
use crate::bad_input;
use crate::data::dataset::Part;

const FORM: Form = Form {
    px: 96,
    columns_first: true,
};
const CLASSES: u8 = 10;
/// The unlabelled part has 100,000.
const MAX_PICTURES: u64 = 1 << 20;

/// Names of pictures and of their labels.
const TRAIN: (&str, Option<&str>) = ("train_X.bin", Some("train_y.bin"));
const TEST: (&str, Option<&str>) = ("test_X.bin", Some("test_y.bin"));
const UNLABELLED: (&str, Option<&str>) = ("unlabeled_X.bin", None);

/// STL-10 at a place.
pub struct Stl {
    folder: PathBuf,
    /// Where one of its files was asked for.
    only: Option<(&'static str, Option<&'static str>)>,
}

/// The folder of its files, at or directly below `path`; or one of them.
pub fn find(path: &Path) -> Option<Stl> {
    let all = [TRAIN, TEST, UNLABELLED];
    if path.is_file() {
        let only = all.into_iter().find(|(name, _)| path.ends_with(name))?;
        return Some(Stl {
            folder: path.parent()?.to_owned(),
            only: Some(only),
        });
    }
    let below = [path.to_owned(), path.join("stl10_binary")];
    let has = |folder: &PathBuf| all.iter().any(|(name, _)| folder.join(name).is_file());
    let folder = below.into_iter().find(has)?;
    Some(Stl { folder, only: None })
}

impl Stl {
    /// The labelled training pictures, the test pictures, or those without
    /// labels; `None` if there are none.
    ///
    /// # Errors
    /// [`bad_input!`] if a file is missing, or has another length or label
    /// than its pictures.
    pub fn open(&self, part: Part) -> Result<Option<Opened>> {
        let has = |(name, _): &(&str, _)| self.folder.join(name).is_file();
        let files = match (self.only, part) {
            (Some(only), Part::All | Part::Train) => vec![only],
            (Some(TRAIN), Part::Test) | (None, Part::Test) if has(&TEST) => vec![TEST],
            (None, Part::Unlabelled) if has(&UNLABELLED) => vec![UNLABELLED],
            (_, Part::Test | Part::Unlabelled) => return Ok(None),
            (None, Part::Train) => vec![TRAIN],
            (None, Part::All) => [TRAIN, TEST, UNLABELLED].into_iter().filter(has).collect(),
        };
        let names = files.iter().flat_map(|(x, y)| [Some(*x), *y]).flatten();
        let names: Vec<&str> = names.collect();
        half_there("STL-10", "stl10", &self.folder, &names, |name| {
            self.folder.join(name).is_file()
        })?;
        let files = files
            .into_iter()
            .map(|(pictures, labels)| self.file(pictures, labels))
            .collect::<Result<Vec<_>>>()?;
        let labelled = files
            .iter()
            .any(|file| file.labels.iter().any(Option::is_some));
        let classes = if labelled { self.classes() } else { vec![] };
        Ok(Some(records::open("STL-10", FORM, files, classes)))
    }

    fn file(&self, pictures: &str, labels: Option<&str>) -> Result<RecordFile> {
        let path = self.folder.join(pictures);
        let len = size(&path)?;
        let count = len / FORM.bytes();
        if len == 0 || len % FORM.bytes() != 0 || count > MAX_PICTURES {
            return Err(bad_input!(
                "{} has {len} bytes: expected up to {MAX_PICTURES} whole pictures of {} (STL-10); \
                 it is cut short, or not the binary version",
                path.display(),
                FORM.bytes()
            ));
        }
        let labels = match labels {
            Some(labels) => read_labels(&self.folder.join(labels), count)?,
            None => vec![None; count as usize],
        };
        Ok(RecordFile {
            name: pictures.to_owned(),
            bytes: Bytes::File(path),
            first: 0,
            stride: FORM.bytes(),
            labels,
        })
    }

    fn classes(&self) -> Vec<String> {
        let list = read_small(&self.folder.join("class_names.txt"), 1 << 20);
        names_or_numbers(&list.unwrap_or_default(), CLASSES.into(), 1)
    }
}

fn size(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(metadata.len())
}

fn read_labels(path: &Path, count: u64) -> Result<Vec<Option<u32>>> {
    let found = size(path)?;
    if found != count {
        return Err(bad_input!(
            "{} has {found} labels for {count} pictures: one of the two is cut short",
            path.display()
        ));
    }
    let labels = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if let Some(at) = labels
        .iter()
        .position(|label| !(1..=CLASSES).contains(label))
    {
        return Err(bad_input!(
            "label {at} of {} is {}: STL-10's are 1 to {CLASSES}; the file is broken",
            path.display(),
            labels[at]
        ));
    }
    Ok(labels
        .iter()
        .map(|&label| Some(u32::from(label) - 1))
        .collect())
}

//! Picture files that a list names, with their labels.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Opened, Source, read_extent};
use crate::bad_input;
use crate::data::decode::{self, Picture};

/// Files by their paths below `root`.
pub struct Listed {
    pub kind: &'static str,
    pub root: PathBuf,
    pub pictures: Vec<(String, Option<u32>)>,
}

impl Listed {
    /// With the names of the classes, by label.
    pub fn opened(self, classes: Vec<String>) -> Opened {
        Opened {
            source: Box::new(self),
            classes,
        }
    }

    fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.pictures[index].0)
    }
}

impl Source for Listed {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn kind(&self) -> String {
        self.kind.into()
    }

    fn name(&self, index: usize) -> String {
        self.pictures[index].0.clone()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.pictures[index].1
    }

    fn size(&self, index: usize) -> Result<u64> {
        let path = self.path(index);
        let metadata =
            fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(metadata.len())
    }

    fn decode(&self, index: usize, exif_orientation: bool) -> Result<Picture> {
        let bytes = read_extent(&self.path(index), 0, self.size(index)?)?;
        decode::decode(&bytes, exif_orientation)
    }
}

/// Refuses a list that names files which `folder` does not have.
///
/// # Errors
/// [`bad_input!`] with how many, and one of them.
pub fn all_there<'a>(
    folder: &Path,
    names: impl Iterator<Item = &'a str> + Clone,
    get: &str,
) -> Result<()> {
    let listing = || format!("listing {}", folder.display());
    let entries = fs::read_dir(folder).with_context(listing)?;
    let there = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<BTreeSet<_>>>()
        .with_context(listing)?;
    let missing = names
        .clone()
        .filter(|name| !there.contains(name.as_ref() as &std::ffi::OsStr));
    match missing.clone().next() {
        None => Ok(()),
        Some(first) => Err(bad_input!(
            "{} lacks {} of the {} pictures that its list names, such as {first}; unpack the \
             archive again, or run `xla-moco data get {get}`",
            folder.display(),
            missing.count(),
            names.count()
        )),
    }
}

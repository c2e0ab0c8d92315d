//! A folder of picture files, in class folders or not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Opened, Source, assign_labels, is_hidden, is_picture_name, read_extent};
use crate::bad_input;
use crate::data::decode::{self, Picture};

/// What a walk through a folder found.
pub struct Found {
    /// Paths of pictures relative to the folder, sorted.
    pub pictures: Vec<PathBuf>,
    /// Paths of tar files directly in the folder, sorted.
    pub tars: Vec<PathBuf>,
    /// One of the other files, as an example for messages.
    pub other: Option<PathBuf>,
}

/// Walks a folder and those below it. Links are followed, but not back to a
/// folder that the walk is in. Hidden files and folders are left out.
pub fn walk(root: &Path) -> Result<Found> {
    let mut found = Found {
        pictures: Vec::new(),
        tars: Vec::new(),
        other: None,
    };
    walk_below(root, Path::new(""), &mut Vec::new(), &mut found)?;
    found.pictures.sort();
    found.tars.sort();
    Ok(found)
}

/// `chain` holds the canonical paths of the folders that the walk is in.
fn walk_below(
    root: &Path,
    relative: &Path,
    chain: &mut Vec<PathBuf>,
    found: &mut Found,
) -> Result<()> {
    let folder = root.join(relative);
    let listing = || format!("listing {}", folder.display());
    let canonical = folder.canonicalize().with_context(listing)?;
    if chain.contains(&canonical) {
        tracing::warn!("{} links back to a folder it is in", folder.display());
        return Ok(());
    }
    chain.push(canonical);
    for entry in fs::read_dir(&folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let below = relative.join(entry.file_name());
        if is_hidden(&below) {
            continue;
        }
        let mut kind = entry.file_type().with_context(listing)?;
        if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(target) => kind = target.file_type(),
                Err(error) => {
                    tracing::warn!("{}: broken link: {error}", entry.path().display());
                    continue;
                }
            }
        }
        if kind.is_dir() {
            walk_below(root, &below, chain, found)?;
        } else if is_picture_name(&below) {
            found.pictures.push(below);
        } else if relative.as_os_str().is_empty() && below.extension().is_some_and(|e| e == "tar") {
            found.tars.push(entry.path());
        } else if found.other.as_ref().is_none_or(|known| below < *known) {
            found.other = Some(below);
        }
    }
    chain.pop();
    Ok(())
}

struct Folder {
    root: PathBuf,
    pictures: Vec<PathBuf>,
    labels: Vec<Option<u32>>,
}

/// The pictures that a walk found. A picture's class is its last folder; one
/// directly in `root` has none.
///
/// # Errors
/// [`bad_input!`] if there are none, or more than fit 32-bit ids.
pub fn open(root: &Path, found: Found) -> Result<Opened> {
    let pictures = found.pictures;
    if pictures.is_empty() {
        let seen = match found.other {
            Some(other) => format!("found only other files, such as {}", other.display()),
            None => "it has no files".into(),
        };
        return Err(bad_input!(
            "no pictures in {}: expected .jpg, .jpeg, .png or .webp files in class folders or \
             directly in it, or .tar files; {seen}",
            root.display()
        ));
    }
    let class_of = |path: &PathBuf| {
        let folder = path.parent()?.file_name()?;
        Some(folder.to_string_lossy().into_owned())
    };
    let names: Vec<Option<String>> = pictures.iter().map(class_of).collect();
    let (classes, labels) = assign_labels(&names);
    let source = Box::new(Folder {
        root: root.to_owned(),
        pictures,
        labels,
    });
    Ok(Opened { source, classes })
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn kind(&self) -> String {
        "folder".into()
    }

    fn name(&self, index: usize) -> String {
        self.pictures[index].to_string_lossy().into_owned()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels[index]
    }

    fn size(&self, index: usize) -> Result<u64> {
        let path = self.root.join(&self.pictures[index]);
        let metadata =
            fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(metadata.len())
    }

    fn decode(&self, index: usize, exif_orientation: bool) -> Result<Picture> {
        let path = self.root.join(&self.pictures[index]);
        let bytes = read_extent(&path, 0, self.size(index)?)?;
        decode::decode(&bytes, exif_orientation)
    }
}

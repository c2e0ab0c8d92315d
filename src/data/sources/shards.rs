//! One tar file or several, read in place: indexed once, then each picture
//! is one read. Either class folders inside, or WebDataset's naming:
//! `key.jpg` beside `key.cls`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Opened, Source, assign_labels, file_name, is_picture_name, read_extent, tars};
use crate::bad_input;
use crate::data::decode::{self, Picture};

/// More than any label that is a number or a name.
const MAX_CLS_BYTES: u64 = 1024;

pub struct Member {
    /// `tar file's name/path inside`.
    pub name: String,
    /// Which of the tar files.
    pub shard: u32,
    pub offset: u64,
    pub len: u64,
}

struct Shards {
    paths: Vec<PathBuf>,
    members: Vec<Member>,
    labels: Vec<Option<u32>>,
}

/// Indexes the tar files. If any of them has `.cls` members these are the
/// labels (a number or a class name); otherwise a picture's class is its
/// last folder, and one that is in no folder has none.
///
/// # Errors
/// [`bad_input!`] if a file is no tar, is compressed or is cut short, or if
/// there are no pictures.
pub fn open(paths: &[PathBuf]) -> Result<Opened> {
    let mut members = Vec::new();
    let mut by_folder = Vec::new();
    let mut by_cls = Vec::new();
    for (shard, path) in paths.iter().enumerate() {
        let index = index(path)?;
        // A tar's later member replaces an earlier one of the same name, and
        // a map keeps them sorted.
        for (inside, (offset, len)) in index.pictures {
            let folder = Path::new(&inside).parent().and_then(Path::file_name);
            by_folder.push(folder.map(|name| name.to_string_lossy().into_owned()));
            by_cls.push(index.cls.get(key(&inside)).cloned());
            let name = format!("{}/{inside}", file_name(path));
            members.push(Member {
                name,
                shard: shard as u32,
                offset,
                len,
            });
        }
    }
    let has_cls = by_cls.iter().any(Option::is_some);
    let classes = if has_cls { by_cls } else { by_folder };
    opened(paths.to_vec(), members.into_iter().zip(classes).collect())
}

/// Members of tar files, with the names of their classes.
///
/// # Errors
/// [`bad_input!`] if there are none.
pub fn opened(paths: Vec<PathBuf>, members: Vec<(Member, Option<String>)>) -> Result<Opened> {
    if members.is_empty() {
        return Err(bad_input!(
            "no pictures in {}: expected members named .jpg, .jpeg, .png or .webp",
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    let (members, names): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let (classes, labels) = assign_labels(&names);
    let source = Box::new(Shards {
        paths,
        members,
        labels,
    });
    Ok(Opened { source, classes })
}

#[derive(Default)]
struct Index {
    /// Path inside -> offset and length.
    pictures: BTreeMap<String, (u64, u64)>,
    /// WebDataset key -> what its `.cls` member says.
    cls: BTreeMap<String, String>,
}

fn index(path: &Path) -> Result<Index> {
    let mut index = Index::default();
    tars::walk(path, None, |mut found| {
        let inside = found.inside;
        if is_picture_name(Path::new(&inside)) {
            index.pictures.insert(inside, (found.offset, found.len));
        } else if inside.ends_with(".cls") && found.len <= MAX_CLS_BYTES {
            let mut text = String::new();
            found
                .entry
                .read_to_string(&mut text)
                .with_context(|| format!("reading {inside} of {}", path.display()))?;
            let key = key(&inside).to_owned();
            index.cls.insert(key, text.trim().to_owned());
        }
        Ok(())
    })?;
    Ok(index)
}

/// WebDataset's key: the path up to the first dot of its last part.
fn key(inside: &str) -> &str {
    let base = inside.rfind('/').map_or(0, |slash| slash + 1);
    let dot = inside[base..].find('.');
    &inside[..dot.map_or(inside.len(), |dot| base + dot)]
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn kind(&self) -> String {
        "tar".into()
    }

    fn name(&self, index: usize) -> String {
        self.members[index].name.clone()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels[index]
    }

    fn size(&self, index: usize) -> Result<u64> {
        Ok(self.members[index].len)
    }

    fn decode(&self, index: usize, exif_orientation: bool) -> Result<Picture> {
        let Member {
            shard, offset, len, ..
        } = self.members[index];
        let bytes = read_extent(&self.paths[shard as usize], offset, len)?;
        decode::decode(&bytes, exif_orientation)
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_end_at_the_first_dot_of_the_last_part() {
        for (path, expected) in [
            ("0001.jpg", "0001"),
            ("a.b/0001.seg.png", "a.b/0001"),
            ("a/none", "a/none"),
        ] {
            assert_eq!(key(path), expected);
        }
    }
}

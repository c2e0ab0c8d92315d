//! One tar file or several, read in place: indexed once, then each picture
//! is one read. Either class folders inside, or WebDataset's naming:
//! `key.jpg` beside `key.cls`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Opened, Source, assign_labels, is_picture_name, read_extent};
use crate::bad_input;
use crate::data::decode::{self, Picture};

/// Tar files are made of blocks of this many bytes.
const BLOCK: u64 = 512;
/// More than any label that is a number or a name.
const MAX_CLS_BYTES: u64 = 1024;

struct Member {
    /// `tar file's name/path inside`.
    name: String,
    shard: u32,
    offset: u64,
    len: u64,
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
    let has_cls = by_cls.iter().any(Option::is_some);
    let (classes, labels) = assign_labels(if has_cls { &by_cls } else { &by_folder });
    let source = Box::new(Shards {
        paths: paths.to_vec(),
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
    let opening = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(opening)?;
    let total = file.metadata().with_context(opening)?.len();
    let mut magic = [0; 2];
    if file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B] {
        return Err(bad_input!(
            "{} is compressed with gzip, so pictures cannot be read in place: unpack it \
             (gunzip) or extract it",
            path.display()
        ));
    }
    file.seek(SeekFrom::Start(0)).with_context(opening)?;

    let mut index = Index::default();
    let mut last = String::from("its start");
    let mut end = 0;
    let cut_short = |last: &str| {
        bad_input!(
            "{} is cut short after {last}: it ends at byte {total} without tar's end mark; \
             copy or download it again",
            path.display()
        )
    };
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().with_context(opening)? {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) if end == 0 => {
                return Err(bad_input!(
                    "{} is no tar file ({error}); expected a folder of pictures, a .tar file \
                     or a CIFAR .bin file",
                    path.display()
                ));
            }
            Err(_) if end + BLOCK > total => return Err(cut_short(&last)),
            Err(error) => {
                return Err(bad_input!(
                    "{} is broken after {last}: {error}; copy or download it again",
                    path.display()
                ));
            }
        };
        let inside = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (offset, len) = (entry.raw_file_position(), entry.size());
        let stop = offset.checked_add(len).filter(|&stop| stop <= total);
        let Some(stop) = stop else {
            return Err(cut_short(&last));
        };
        end = stop.next_multiple_of(BLOCK);
        last = inside.clone();
        if !matches!(
            entry.header().entry_type(),
            tar::EntryType::Regular | tar::EntryType::Continuous
        ) {
            continue;
        }
        let inside = inside.trim_start_matches("./").to_owned();
        if is_picture_name(Path::new(&inside)) {
            index.pictures.insert(inside, (offset, len));
        } else if inside.ends_with(".cls") && len <= MAX_CLS_BYTES {
            let mut text = String::new();
            entry
                .read_to_string(&mut text)
                .with_context(|| format!("reading {inside} of {}", path.display()))?;
            index
                .cls
                .insert(key(&inside).to_owned(), text.trim().to_owned());
        }
    }
    // Whole up to here; but a file cut between two members is too.
    if end + BLOCK > total {
        return Err(cut_short(&last));
    }
    Ok(index)
}

/// WebDataset's key: the path up to the first dot of its last part.
fn key(inside: &str) -> &str {
    let base = inside.rfind('/').map_or(0, |slash| slash + 1);
    let dot = inside[base..].find('.');
    &inside[..dot.map_or(inside.len(), |dot| base + dot)]
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
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

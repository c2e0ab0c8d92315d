//! Compressed tar files that are read into memory: small parts of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use tar::Archive;

use super::file_name;
use crate::bad_input;

/// What an archive may unpack to, whatever is in it; CIFAR-10's has 186 MB.
const MAX_UNPACKED: u64 = 256 << 20;
/// Members that are looked at.
const MAX_MEMBERS: usize = 10_000;

fn open(path: &Path) -> Result<Archive<Take<MultiGzDecoder<BufReader<File>>>>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let unzipped = MultiGzDecoder::new(BufReader::new(file));
    Ok(Archive::new(unzipped.take(MAX_UNPACKED)))
}

/// The name of the first member.
///
/// # Errors
/// [`bad_input!`] if it is no tar file compressed with gzip.
pub fn first_name(path: &Path) -> Result<String> {
    let first = || -> Result<String> {
        let mut archive = open(path)?;
        // Raw: a long name, which is a member of its own, could be of any length.
        let entry = archive.entries()?.raw(true).next();
        let entry = entry.context("it is empty")??;
        Ok(String::from_utf8_lossy(&entry.path_bytes()).into_owned())
    };
    first().map_err(|error| {
        bad_input!(
            "{} begins as a file compressed with gzip, but no tar file is in it ({error:#})",
            path.display()
        )
    })
}

/// The members whose file names `limit` gives a size to, by these names: at
/// most so many bytes each.
///
/// # Errors
/// [`bad_input!`] if the archive is broken, cut short or too large.
pub fn members(
    path: &Path,
    limit: impl Fn(&str) -> Option<u64>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = || -> Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for (at, entry) in open(path)?.entries()?.raw(true).enumerate() {
            ensure!(at < MAX_MEMBERS, "it has over {MAX_MEMBERS} members");
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = file_name(Path::new(&name));
            let Some(limit) = limit(&name).filter(|_| entry.header().entry_type().is_file()) else {
                continue;
            };
            let size = entry.size();
            ensure!(
                size <= limit,
                "{name} has {size} bytes; at most {limit} are expected"
            );
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 == size, "it is cut short in {name}");
            found.insert(name, bytes);
        }
        Ok(found)
    };
    read().map_err(|error| {
        bad_input!(
            "{} cannot be read: {error:#}; download it again",
            path.display()
        )
    })
}

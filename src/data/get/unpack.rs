//! Unpacking a compressed tar file that was checked, and is distrusted all the
//! same.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

/// Bounds of all that one archive unpacks to: STL-10's has 3.2 GB, that of the
/// pets 7,400 files.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: u64,
    pub members: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            members: 200_000,
        }
    }
}

/// Deepest path.
const MAX_DEPTH: usize = 16;

/// Writes the archive's files below `folder`, which must have nothing in it
/// that others can change. Nothing is written outside of it.
///
/// # Errors
/// If a member is a link or a device, leads out of the folder, or there is more
/// than `bounds` allow; if the archive is broken.
pub fn unpack(archive: &Path, folder: &Path, bounds: Bounds) -> Result<()> {
    let unpacking = || format!("cannot unpack {}", archive.display());
    let file = File::open(archive).with_context(unpacking)?;
    let unzipped = MultiGzDecoder::new(BufReader::new(file));
    // Headers and padding count too: an archive of nothing but headers ends.
    let overhead = bounds.members as u64 * 2048;
    let mut tar = Archive::new(unzipped.take(bounds.bytes + overhead));
    write_members(&mut tar, folder, bounds).with_context(unpacking)
}

fn write_members(tar: &mut Archive<impl Read>, folder: &Path, bounds: Bounds) -> Result<()> {
    let mut left = bounds.bytes;
    // Raw: a long name, which is a member of its own, could be of any length.
    for (at, entry) in tar.entries()?.raw(true).enumerate() {
        let mut entry = entry?;
        ensure!(
            at < bounds.members,
            "it has over {} members",
            bounds.members
        );
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => fs::create_dir_all(folder.join(inside(&name)?))?,
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                left = left
                    .checked_sub(size)
                    .with_context(|| format!("it unpacks to more than {} bytes", bounds.bytes))?;
                let path = folder.join(inside(&name)?);
                fs::create_dir_all(path.parent().context("a file has no folder")?)?;
                let mut file = File::create(&path)?;
                let written = io::copy(&mut entry, &mut file)?;
                ensure!(written == size, "it is cut short in {name}");
                // The folder is published by a rename, which must not come to
                // the disk before its content.
                file.sync_all()?;
            }
            // Times and owners, which nobody here needs.
            EntryType::XHeader | EntryType::XGlobalHeader => {}
            _ => bail!("its member {name:?} is neither file nor folder ({kind:?})"),
        }
    }
    Ok(())
}

/// A member's path, if it stays in the folder.
fn inside(name: &str) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => bail!("the name {name:?} leads out of the folder"),
        }
    }
    ensure!(
        path.components().count() <= MAX_DEPTH && !name.contains('\0'),
        "the name {name:?} is no name of a data set's file"
    );
    Ok(path)
}

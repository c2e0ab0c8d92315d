//! The members of a tar file, or of one that lies in another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use tar::Archive;

use crate::bad_input;

/// Tar files are made of blocks of this many bytes.
const BLOCK: u64 = 512;

/// A part of a file, as if it were one.
pub struct Window {
    file: File,
    start: u64,
    len: u64,
    at: u64,
}

/// A member that is a file.
pub struct Member<'a> {
    /// Its path inside.
    pub inside: String,
    /// From the beginning of the outermost file.
    pub offset: u64,
    pub len: u64,
    pub entry: tar::Entry<'a, Window>,
}

/// Gives each file of a tar file to `each`, in order. `part` is where it lies
/// in the file at `path`, and its length; `None` for all of it.
///
/// # Errors
/// [`bad_input!`] if it is no tar file, compressed, broken or cut short; what
/// `each` says.
pub fn walk(
    path: &Path,
    part: Option<(u64, u64)>,
    mut each: impl FnMut(Member) -> Result<()>,
) -> Result<()> {
    let opening = || format!("reading {}", path.display());
    let file = File::open(path).with_context(opening)?;
    let whole = file.metadata().with_context(opening)?.len();
    let (start, total) = part.unwrap_or((0, whole));
    let mut window = Window {
        file,
        start,
        len: total,
        at: 0,
    };
    let mut magic = [0; 2];
    if window.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B] {
        return Err(bad_input!(
            "{} is compressed with gzip, so pictures cannot be read in place: unpack it \
             (gunzip) or extract it",
            path.display()
        ));
    }
    window.seek(SeekFrom::Start(0)).with_context(opening)?;

    let mut last = String::from("its start");
    let mut end = 0;
    let cut_short = |last: &str| {
        bad_input!(
            "{} is cut short after {last}: it ends at byte {} without tar's end mark; \
             copy or download it again",
            path.display(),
            start + total
        )
    };
    let mut archive = Archive::new(window);
    for entry in archive.entries_with_seek().with_context(opening)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if end == 0 => {
                return Err(bad_input!(
                    "{} is no tar file ({error}); expected a folder of pictures, a .tar file, \
                     a .csv file or a CIFAR .bin file",
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
        if matches!(
            entry.header().entry_type(),
            tar::EntryType::Regular | tar::EntryType::Continuous
        ) {
            each(Member {
                inside: inside.trim_start_matches("./").to_owned(),
                offset: start + offset,
                len,
                entry,
            })?;
        }
    }
    // Whole up to here; but a file cut between two members is too.
    if end + BLOCK > total {
        return Err(cut_short(&last));
    }
    Ok(())
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let count = (buffer.len() as u64).min(left) as usize;
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let read = self.file.read(&mut buffer[..count])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

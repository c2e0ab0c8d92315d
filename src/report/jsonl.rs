//! Files of one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::checkpoint::atomic;

/// No line of ours is nearly as long; a longer one is damage.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Appends lines. Each is one `write` call, so that a reader that follows the
/// file sees whole lines and a killed process tears at most the last one.
pub(super) struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Appender {
            file,
            path: path.to_owned(),
        })
    }

    pub(super) fn append(&mut self, object: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Another handle of the same file, to sync it from another thread.
    pub(super) fn handle(&self) -> Result<File> {
        let handle = self.file.try_clone();
        handle.with_context(|| format!("cannot share {}", self.path.display()))
    }
}

/// Rewrites the file, atomically, with the lines that `keep` wants, unless
/// those are all. What is no whole line or no object goes in any case.
pub(super) fn cut(path: &Path, mut keep: impl FnMut(&Map<String, Value>) -> bool) -> Result<()> {
    let mut kept = Vec::new();
    let mut dropped = false;
    for_each_line(path, |line, object| match object {
        Some(object) if keep(&object) => kept.extend_from_slice(line),
        _ => dropped = true,
    })?;
    if dropped {
        atomic::write_file(path, &kept)?;
    }
    Ok(())
}

/// The objects of the file; none if there is no file. What is no whole line
/// or no object (the end of a file that is being written) is passed over.
pub(super) fn read(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let mut objects = Vec::new();
    for_each_line(path, |_, object| objects.extend(object))?;
    Ok(objects)
}

fn for_each_line(
    path: &Path,
    mut take: impl FnMut(&[u8], Option<Map<String, Value>>),
) -> Result<()> {
    let context = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.with_context(context)?,
    };
    let mut input = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut input).take(MAX_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).with_context(context)? == 0 {
            return Ok(());
        }
        let object = if line.ends_with(b"\n") {
            serde_json::from_slice(&line).ok()
        } else {
            None
        };
        take(&line, object);
    }
}

/// What [`Tail::poll`] gives.
pub(super) enum Tailed {
    /// The file is another than before, or was cut: all lines come again.
    Again,
    Line(Map<String, Value>),
}

/// Follows a file to which lines are appended.
pub(super) struct Tail {
    path: PathBuf,
    /// Bytes read so far: whole lines.
    read: u64,
    /// The last of these bytes. A file that was cut and has grown again has
    /// others there: each line has times in it.
    end: Vec<u8>,
}

impl Tail {
    /// So many bytes tell whether a file is still the same one.
    const END: usize = 256;

    pub(super) fn new(path: PathBuf) -> Self {
        Tail {
            path,
            read: 0,
            end: Vec::new(),
        }
    }

    /// The objects that were appended since the last call, whole lines only;
    /// says whether there was anything new. A file that is not there is empty.
    pub(super) fn poll(&mut self, mut take: impl FnMut(Tailed)) -> Result<bool> {
        let context = || format!("cannot read {}", self.path.display());
        let file = match File::open(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(context),
        };
        let same = match &file {
            Some(file) => still_ends(file, self.read, &self.end).with_context(context)?,
            None => self.read == 0,
        };
        if !same {
            (self.read, self.end) = (0, Vec::new());
            take(Tailed::Again);
        }
        let Some(mut file) = file else {
            return Ok(!same);
        };
        file.seek(SeekFrom::Start(self.read))
            .with_context(context)?;
        let mut input = BufReader::new(file);
        let mut line = Vec::new();
        let mut news = !same;
        loop {
            line.clear();
            let mut bounded = (&mut input).take(MAX_LINE_BYTES);
            let length = bounded.read_until(b'\n', &mut line).with_context(context)? as u64;
            // A line that is being written comes next time.
            if !line.ends_with(b"\n") && length < MAX_LINE_BYTES {
                return Ok(news);
            }
            news = true;
            self.read += length;
            self.end
                .extend(&line[line.len().saturating_sub(Self::END)..]);
            let more = self.end.len().saturating_sub(Self::END);
            self.end.drain(..more);
            if let Ok(object) = serde_json::from_slice(&line) {
                take(Tailed::Line(object));
            }
        }
    }
}

/// Whether the first `read` bytes of a file end in `end`.
fn still_ends(mut file: &File, read: u64, end: &[u8]) -> std::io::Result<bool> {
    if file.metadata()?.len() < read {
        return Ok(false);
    }
    let mut found = vec![0; end.len()];
    file.seek(SeekFrom::Start(read - end.len() as u64))?;
    match file.read_exact(&mut found) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| found == end),
    }
}

/// The step that a line is about.
pub(super) fn step_of(object: &Map<String, Value>) -> Option<u64> {
    object.get("step")?.as_u64()
}

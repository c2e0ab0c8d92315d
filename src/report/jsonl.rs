//! Files of one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
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

/// The step that a line is about.
pub(super) fn step_of(object: &Map<String, Value>) -> Option<u64> {
    object.get("step")?.as_u64()
}

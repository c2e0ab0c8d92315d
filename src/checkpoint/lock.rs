//! One run in a folder at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::manifest::host_name;
use crate::bad_input;

/// Holds a run folder for this process. The operating system gives the lock
/// back when the process ends, however it ends; the file stays (removing it
/// would let two processes lock two files of one name).
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock, or names the process that has it.
    pub(super) fn acquire(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(256).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process",
                    told => told,
                };
                let run = path.parent().unwrap_or(path).display();
                return Err(bad_input!(
                    "the run folder {run} is in use by {holder}: wait until it ends, stop it, \
                     or give another folder with --out"
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot lock {}: does its file system have locks?",
                        path.display()
                    )
                });
            }
        }
        let told = format!("process {} on {}\n", std::process::id(), host_name());
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(told.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(RunLock { file })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // So that nobody is told of a process that is gone.
        let _ = self.file.set_len(0);
    }
}

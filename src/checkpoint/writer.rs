//! Saving a checkpoint: all of it or nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::atomic::{TEMP_PREFIX, remove_any, remove_leftovers, sync_dir};
use super::manifest::{Manifest, Origin};
use super::reader::{MANIFEST_FILE, STATE_FILE, verify};
use super::run_dir::{RunDir, parse_step_name, step_name};
use super::state::Snapshot;

/// A checkpoint that is being replaced waits under this prefix until the new
/// one has its name; after a crash between the two renames it gets it back.
const REPLACED_PREFIX: &str = ".replaced-";

/// Room for the manifest and the folder beside the state file.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// What a save did.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub step: u64,
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Size of the state file.
    pub bytes: u64,
    /// The same state was there already, intact, and was left as it is.
    pub already_there: bool,
    /// Steps whose checkpoints were deleted afterwards, by the retention rule.
    pub deleted: Vec<u64>,
}

/// Writes the checkpoint of `snapshot` into the run. The caller holds the
/// run's lock. What holds after an error, a kill or a power failure stands in
/// the documentation of the module.
///
/// # Errors
/// Those of the file system; a full disk names the bytes needed and free. The
/// earlier checkpoints are then untouched and nothing temporary is left.
pub fn save(run: &RunDir, snapshot: &Snapshot, origin: &Origin) -> Result<Saved> {
    let step = snapshot.step();
    let target = run.checkpoint_dir(step);
    let mut saved = Saved {
        step,
        path: target.clone(),
        bytes: snapshot.file_bytes()?,
        already_there: false,
        deleted: Vec::new(),
    };
    let exists = fs::symlink_metadata(&target).is_ok();
    if exists && is_same(&target, snapshot, origin)? {
        saved.already_there = true;
        return Ok(saved);
    }
    let checkpoints = run.checkpoints_dir();
    let temp = checkpoints.join(format!("{TEMP_PREFIX}{}", step_name(step)));
    let replaced = checkpoints.join(format!("{REPLACED_PREFIX}{}", step_name(step)));
    let written = remove_any(&temp)
        .and_then(|()| write_folder(&temp, snapshot, origin, saved.bytes))
        .and_then(|()| {
            if exists {
                remove_any(&replaced)?;
                fs::rename(&target, &replaced)?;
            }
            fs::rename(&temp, &target)?;
            sync_dir(&checkpoints)
        });
    if let Err(error) = written {
        let needed = saved.bytes + OVERHEAD_BYTES;
        let error = explain(error, &checkpoints, step, needed);
        let _ = remove_any(&temp);
        if exists && fs::symlink_metadata(&target).is_err() {
            let _ = fs::rename(&replaced, &target);
        }
        return Err(error);
    }
    if exists {
        // Not worth a failure: the next lock removes it.
        let _ = remove_any(&replaced);
    }
    Ok(saved)
}

/// Puts the checkpoints folder in order after a crash. Only for the holder of
/// the run's lock.
pub(super) fn recover(checkpoints: &Path) -> Result<()> {
    remove_leftovers(checkpoints)?;
    for entry in fs::read_dir(checkpoints)? {
        let replaced = entry?.path();
        let name = replaced.file_name().unwrap_or_default().to_string_lossy();
        let Some(name) = name.strip_prefix(REPLACED_PREFIX) else {
            continue;
        };
        let target = checkpoints.join(name);
        if parse_step_name(name).is_some() && fs::symlink_metadata(&target).is_err() {
            fs::rename(&replaced, &target)
        } else {
            remove_any(&replaced)
        }
        .with_context(|| format!("cannot tidy up {}", replaced.display()))?;
    }
    sync_dir(checkpoints).with_context(|| format!("cannot sync {}", checkpoints.display()))
}

/// Deletes a checkpoint so that a crash leaves it whole or gone.
pub(super) fn delete(run: &RunDir, step: u64) -> Result<()> {
    let path = run.checkpoint_dir(step);
    let name = format!("{TEMP_PREFIX}deleted-{}", step_name(step));
    let doomed = run.checkpoints_dir().join(name);
    remove_any(&doomed)
        .and_then(|()| fs::rename(&path, &doomed))
        .and_then(|()| remove_any(&doomed))
        .with_context(|| format!("cannot delete {}", path.display()))
}

/// Whether the checkpoint there is intact and says the same. One whose bytes
/// have rotted is not the same, though its manifest may say so.
fn is_same(target: &Path, snapshot: &Snapshot, origin: &Origin) -> Result<bool> {
    let Ok(there) = verify(target) else {
        return Ok(false);
    };
    let (bytes, sha256) = snapshot.write(io::sink())?;
    Ok(there.state_bytes == bytes && there.state_sha256 == sha256 && there.origin == *origin)
}

fn write_folder(
    temp: &Path,
    snapshot: &Snapshot,
    origin: &Origin,
    state_bytes: u64,
) -> io::Result<()> {
    fs::create_dir(temp)?;
    // Asked first, so as not to fill the disk to the brim before giving up;
    // a write can still find it full.
    if fs4::available_space(temp)? < state_bytes + OVERHEAD_BYTES {
        return Err(ErrorKind::StorageFull.into());
    }
    let file = File::create_new(temp.join(STATE_FILE))?;
    let state = snapshot.write(&file)?;
    file.sync_all()?;
    let manifest = Manifest::new(snapshot.step(), state, origin)
        .and_then(|manifest| manifest.to_json())
        .map_err(io::Error::other)?;
    let mut file = File::create_new(temp.join(MANIFEST_FILE))?;
    file.write_all(&manifest)?;
    file.sync_all()?;
    sync_dir(temp)
}

fn explain(error: io::Error, checkpoints: &Path, step: u64, needed: u64) -> anyhow::Error {
    let folder = checkpoints.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let free = match fs4::available_space(checkpoints) {
                Ok(bytes) => format!("{bytes} bytes are free"),
                Err(_) => "how much is free is not known".into(),
            };
            anyhow::Error::new(error).context(format!(
                "disk full while saving step {step} in {folder}: {needed} bytes are needed, \
                 {free}. The earlier checkpoints are untouched: make room (or keep fewer \
                 checkpoints), then run the same command to resume"
            ))
        }
        _ => anyhow::Error::new(error).context(format!("cannot save step {step} in {folder}")),
    }
}

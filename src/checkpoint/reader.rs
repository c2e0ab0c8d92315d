//! Finding and loading checkpoints; every file is distrusted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::manifest::{Manifest, file_name};
use super::run_dir::{RunDir, parse_step_name};
use super::state::{Snapshot, digest};
use crate::bad_input;

pub(super) const STATE_FILE: &str = "state.safetensors";
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// The checkpoints of a run, oldest first, by their names alone.
pub fn list(run: &RunDir) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.checkpoints_dir();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(step) = entry.file_name().to_str().and_then(parse_step_name) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Loads one checkpoint and checks all of it: a real folder (no link) with
/// regular files, a known format version, sizes, the header against the file,
/// the SHA-256 of each file, the step against the folder's name.
///
/// # Errors
/// Bad input that names the folder and what is wrong. Nothing larger than the
/// state file itself is allocated.
pub fn load(path: &Path) -> Result<(Manifest, Snapshot)> {
    let loaded = (|| {
        let (manifest, state) = open_state(path)?;
        let (snapshot, sha256) = Snapshot::read(manifest.step, state, manifest.state_bytes)
            .with_context(|| format!("its {STATE_FILE} is damaged"))?;
        check_sha256(&manifest, &sha256)?;
        Ok((manifest, snapshot))
    })();
    loaded.map_err(|error| unusable(path, &error))
}

/// All checks of [`load`] that need no look into the tensors, in constant
/// memory.
pub fn verify(path: &Path) -> Result<Manifest> {
    let verified = (|| {
        let (manifest, state) = open_state(path)?;
        let (_, sha256) = digest(state)?;
        check_sha256(&manifest, &sha256)?;
        Ok(manifest)
    })();
    verified.map_err(|error| unusable(path, &error))
}

/// The newest good checkpoint of a run.
#[derive(Debug)]
pub struct Loaded {
    pub path: PathBuf,
    pub manifest: Manifest,
    pub snapshot: Snapshot,
    /// Why each newer one could not be used, newest first.
    pub skipped: Vec<String>,
}

/// Loads the newest checkpoint that passes all checks; each newer one that
/// does not is named in a warning. `None`: the run has no checkpoint yet.
///
/// # Errors
/// There are checkpoints but none is good: starting over unasked would throw
/// the run away.
pub fn load_latest(run: &RunDir) -> Result<Option<Loaded>> {
    let mut skipped = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match load(&path) {
            Ok((manifest, snapshot)) => {
                return Ok(Some(Loaded {
                    path,
                    manifest,
                    snapshot,
                    skipped,
                }));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!("{reason}; trying the next older one");
                skipped.push(reason);
            }
        }
    }
    if skipped.is_empty() {
        return Ok(None);
    }
    Err(bad_input!(
        "none of the {} checkpoints in {} can be used: {}. To start over, give a new folder \
         with --out",
        skipped.len(),
        run.checkpoints_dir().display(),
        skipped.join("; ")
    ))
}

/// Loads what a user named: a checkpoint's folder, or a run's folder for its
/// newest good checkpoint.
///
/// # Errors
/// Those of [`load`], or a path with nothing to load (bad input).
pub fn open(path: &Path) -> Result<Loaded> {
    if path.join(MANIFEST_FILE).exists() || path.join(STATE_FILE).exists() {
        let (manifest, snapshot) = load(path)?;
        return Ok(Loaded {
            path: path.to_owned(),
            manifest,
            snapshot,
            skipped: Vec::new(),
        });
    }
    let run = RunDir::open(path)?;
    load_latest(&run)?.ok_or_else(|| bad_input!("the run {} has no checkpoint yet", path.display()))
}

fn open_state(path: &Path) -> Result<(Manifest, File)> {
    let folder = fs::symlink_metadata(path).context("there is no such folder")?;
    ensure!(!folder.is_symlink(), "it is a link, not a folder");
    ensure!(folder.is_dir(), "it is no folder");
    let manifest = Manifest::read(&path.join(MANIFEST_FILE))?;
    if let Some(named) = parse_step_name(&file_name(path)) {
        ensure!(
            named == manifest.step,
            "its manifest is of step {}, not of step {named}",
            manifest.step
        );
    }
    let state_path = path.join(STATE_FILE);
    let state =
        fs::symlink_metadata(&state_path).with_context(|| format!("it has no {STATE_FILE}"))?;
    ensure!(state.is_file(), "its {STATE_FILE} is no regular file");
    ensure!(
        state.len() == manifest.state_bytes && state.len() >= 8,
        "its {STATE_FILE} has {} bytes, {} were written",
        state.len(),
        manifest.state_bytes
    );
    Ok((manifest, File::open(&state_path)?))
}

fn check_sha256(manifest: &Manifest, found: &str) -> Result<()> {
    ensure!(
        found == manifest.state_sha256,
        "its {STATE_FILE} is damaged: SHA-256 {found}, written was {}",
        manifest.state_sha256
    );
    Ok(())
}

fn unusable(path: &Path, error: &anyhow::Error) -> anyhow::Error {
    bad_input!(
        "the checkpoint {} cannot be used: {error:#}",
        path.display()
    )
}

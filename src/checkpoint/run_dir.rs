//! The folder of a run: where things are in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::lock::RunLock;
use super::{atomic, writer};
use crate::bad_input;

/// A config is some pages of text; a larger file is none.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The folder of a run. Only the holder of its lock writes in it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Makes the folder where it is not there yet.
    ///
    /// # Errors
    /// A path that cannot be a folder (bad input).
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let run = RunDir { root: root.into() };
        fs::create_dir_all(run.checkpoints_dir())
            .and_then(|()| atomic::sync_dir(&run.root))
            .map_err(|error| {
                bad_input!("cannot make the run folder {}: {error}", run.root.display())
            })?;
        Ok(run)
    }

    /// A folder that is there, to read from.
    ///
    /// # Errors
    /// No such folder, or one that is no run's (bad input).
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let run = RunDir { root: root.into() };
        if !run.root.is_dir() {
            return Err(bad_input!("there is no run folder {}", run.root.display()));
        }
        if !run.checkpoints_dir().is_dir() && !run.config_path().is_file() {
            return Err(bad_input!(
                "{} is no run folder: it has neither config.json nor checkpoints/",
                run.root.display()
            ));
        }
        Ok(run)
    }

    /// Takes the folder for this process and removes what a killed writer left
    /// unfinished in it.
    ///
    /// # Errors
    /// Another process holds it: bad input that names the process.
    pub fn lock(&self) -> Result<RunLock> {
        let lock = RunLock::acquire(&self.root.join("run.lock"))?;
        atomic::remove_leftovers(&self.root)?;
        writer::recover(&self.checkpoints_dir())?;
        Ok(lock)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config_path(&self) -> PathBuf {
        self.root.join("config.json")
    }

    pub fn metrics_path(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    pub fn events_path(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    pub fn tensorboard_dir(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    pub fn report_path(&self) -> PathBuf {
        self.root.join("report.html")
    }

    pub fn checkpoints_dir(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// `checkpoints/step-00000024`; whether it is there is another question.
    pub fn checkpoint_dir(&self, step: u64) -> PathBuf {
        self.checkpoints_dir().join(step_name(step))
    }

    /// Writes `config.json`, atomically.
    pub fn write_config(&self, config: &Value) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(config)?;
        json.push(b'\n');
        atomic::write_file(&self.config_path(), &json)
    }

    /// Reads `config.json`; `None` where there is none yet.
    ///
    /// # Errors
    /// A file that is no JSON (bad input).
    pub fn read_config(&self) -> Result<Option<Value>> {
        let path = self.config_path();
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if !meta.is_file() || meta.len() > MAX_CONFIG_BYTES {
            return Err(bad_input!("{} is no config file", path.display()));
        }
        let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| bad_input!("{} is no JSON: {error}", path.display()))
    }
}

/// `step-00000024`.
pub(super) fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a name that [`step_name`] gives, of no other.
pub(super) fn parse_step_name(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names() {
        for (step, name) in [(24, "step-00000024"), (123_456_789, "step-123456789")] {
            assert_eq!(step_name(step), name);
            assert_eq!(parse_step_name(name), Some(step));
        }
        for name in [
            "step-24",
            "step-+0000024",
            "step-",
            "step-0000002a",
            ".tmp-step-00000024",
        ] {
            assert_eq!(parse_step_name(name), None, "{name}");
        }
    }

    #[test]
    fn config_round_trip_and_bad_config() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("a/b")).unwrap();
        assert_eq!(run.read_config().unwrap(), None);
        let config = serde_json::json!({"z": 1, "a": {"b": [1.5, null]}});
        run.write_config(&config).unwrap();
        assert_eq!(run.read_config().unwrap(), Some(config));
        fs::write(run.config_path(), "{").unwrap();
        let error = run.read_config().unwrap_err();
        assert!(error.is::<crate::error::BadInput>(), "{error:#}");
    }

    #[test]
    fn a_folder_that_is_no_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none")] {
            let error = RunDir::open(&path).unwrap_err();
            assert!(error.is::<crate::error::BadInput>(), "{error:#}");
        }
    }
}

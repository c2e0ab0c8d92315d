//! The run's folder: one process at a time, and what is there to go on from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bad_input;
use crate::checkpoint::{Origin, RunDir, RunLock, Snapshot, load_latest};
use crate::config::{self, RunConfig};

/// A run's folder, held by this process.
pub struct Folder {
    /// Where this host's records go.
    pub run: RunDir,
    /// The run's: what all hosts share.
    pub root: PathBuf,
    resume: Option<Resume>,
    _lock: RunLock,
}

/// What a run goes on from.
struct Resume {
    step: u64,
    origin: Origin,
    /// Until the devices have it.
    state: Option<Snapshot>,
}

impl Folder {
    /// Makes or takes the folder, loads the newest good checkpoint, and checks
    /// that it is of this run. The configuration is written down. A folder
    /// without any checkpoint is begun anew, whatever was begun there.
    ///
    /// # Errors
    /// [`bad_input!`] if another process holds the folder, if no checkpoint in
    /// it is whole, or if it is of other pictures or another configuration;
    /// the message names the keys.
    ///
    /// `own` is where this host's records go: `root` itself, where the
    /// checkpoints are, for all but the other hosts of a job.
    pub fn take(
        root: &Path,
        own: &Path,
        config: &RunConfig,
        data_fingerprint: &str,
    ) -> Result<Self> {
        let run = RunDir::create(own)?;
        let lock = run.lock()?;
        let loaded = load_latest(&RunDir::create(root)?)?;
        if let Some(loaded) = &loaded {
            let refused = || format!("cannot resume {}", run.root().display());
            check_config(&run, config).with_context(refused)?;
            check_origin(&loaded.manifest.origin, config, data_fingerprint)
                .with_context(refused)?;
        }
        run.write_config(&config.to_value())?;
        Ok(Self {
            resume: loaded.map(|loaded| Resume {
                step: loaded.manifest.step,
                origin: loaded.manifest.origin,
                state: Some(loaded.snapshot),
            }),
            run,
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.resume_step().unwrap_or(0)
    }

    /// The step of the checkpoint that the run goes on from, if there is one.
    pub fn resume_step(&self) -> Option<u64> {
        self.resume.as_ref().map(|resume| resume.step)
    }

    /// Where that checkpoint came from.
    pub fn origin(&self) -> Option<&Origin> {
        self.resume.as_ref().map(|resume| &resume.origin)
    }

    /// The size of the thread pool that the run began with.
    pub fn threads(&self) -> Option<usize> {
        let threads = self.origin()?.thread_count as usize;
        (threads > 0).then_some(threads)
    }

    /// The checkpoint's state; given away once.
    pub fn take_state(&mut self) -> Option<Snapshot> {
        self.resume.as_mut()?.state.take()
    }
}

/// Compares with the `config.json` that is there; one that is missing is made
/// up for by the fingerprint in the checkpoint.
fn check_config(run: &RunDir, config: &RunConfig) -> Result<()> {
    let Some(written) = run.read_config()? else {
        return Ok(());
    };
    let old = RunConfig::from_value(written)
        .with_context(|| format!("in {}", run.config_path().display()))?;
    let differing = config::diff_that_matters(&old, config);
    if differing.is_empty() {
        return Ok(());
    }
    let absent_or = |value: &Value| match value {
        Value::Null => "absent".to_owned(),
        value => value.to_string(),
    };
    let list: Vec<String> = differing
        .iter()
        .map(|d| {
            format!(
                "`{}` was {}, is {}",
                d.key,
                absent_or(&d.old),
                absent_or(&d.new)
            )
        })
        .collect();
    Err(bad_input!(
        "the configuration differs from the one that the run began with: {}. Take these back, or \
         give another folder with --out",
        list.join("; ")
    ))
}

fn check_origin(origin: &Origin, config: &RunConfig, data_fingerprint: &str) -> Result<()> {
    if origin.config_fingerprint != config.fingerprint() {
        return Err(bad_input!(
            "its newest checkpoint is of another configuration than its config.json: expected \
             fingerprint {}, found {}. Was it copied from another run? Give another folder with \
             --out",
            config.fingerprint(),
            origin.config_fingerprint
        ));
    }
    if origin.data_fingerprint != data_fingerprint {
        return Err(bad_input!(
            "the pictures are not those that the run began with (names, sizes, classes or order \
             differ): give them back with --data, or begin another run with --out"
        ));
    }
    Ok(())
}

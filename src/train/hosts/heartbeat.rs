//! What each host last did, in files that all hosts see, and what is said when
//! one of them is silent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{atomic, utc};

/// At most one file a host in so long.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest file that is read back.
const MAX_SIZE: u64 = 4096;

pub(super) fn folder(out: &Path) -> PathBuf {
    out.join("hosts")
}

/// This host's reports. A host that is alone makes none.
pub struct Heartbeat {
    out: PathBuf,
    host: usize,
    hosts: usize,
    last: Option<Instant>,
}

/// A host's last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    host: usize,
    /// Enqueued steps, from the run's first.
    step: u64,
    at: String,
}

impl Heartbeat {
    pub fn new(out: &Path, host: usize, hosts: usize) -> Result<Self> {
        if hosts > 1 {
            std::fs::create_dir_all(folder(out))?;
        }
        Ok(Self {
            out: out.to_owned(),
            host,
            hosts,
            last: None,
        })
    }

    fn path(&self, host: usize) -> PathBuf {
        folder(&self.out).join(format!("host-{host}.json"))
    }

    /// Reports that `step` steps are enqueued.
    pub fn beat(&mut self, step: u64) -> Result<()> {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= PAUSE);
        if self.hosts == 1 || !is_due {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let report = Report {
            host: self.host,
            step,
            at: utc(SystemTime::now()),
        };
        atomic::write_file(&self.path(self.host), &serde_json::to_vec(&report)?)
    }

    /// What is said when a step is not done in time.
    pub fn silence(&self, program: &str, step: u64, waited: Duration) -> Silence {
        let told = (0..self.hosts).map(|host| match self.read(host) {
            Some(report) => format!("host {host}: step {} at {}", report.step, report.at),
            None => format!("host {host}: nothing"),
        });
        let reports = match self.hosts {
            1 => String::new(),
            _ => format!("; last reports: {}", told.collect::<Vec<_>>().join(", ")),
        };
        Silence {
            program: program.to_owned(),
            step,
            waited,
            reports,
        }
    }

    fn read(&self, host: usize) -> Option<Report> {
        let path = self.path(host);
        let is_small = path.metadata().ok()?.len() <= MAX_SIZE;
        let bytes = is_small.then(|| std::fs::read(&path))?.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// A step that is not done in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "step {step} ({program}) is not done after {waited:?} (mesh.deadline_seconds){reports}. A host \
     or a link of the network hangs; the same command on all hosts goes on from the newest \
     checkpoint"
)]
pub struct Silence {
    program: String,
    step: u64,
    waited: Duration,
    reports: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_step_is_told_with_every_hosts_last_report() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Heartbeat::new(folder.path(), 1, 3).unwrap();
        host.beat(41).unwrap();
        // Too soon for another.
        host.beat(42).unwrap();
        std::fs::write(host.path(2), "{").unwrap();
        let silence = host.silence("train_step", 43, Duration::from_secs(5));
        let text = silence.to_string();
        for words in [
            "step 43 (train_step) is not done after 5s",
            "host 0: nothing, host 1: step 41 at 2",
            "host 2: nothing",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}

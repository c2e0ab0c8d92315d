//! What each host last did, in files that all hosts see, and what is said when
//! one of them is silent.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
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
    /// The leader's report when it was last looked at.
    seen: Option<Report>,
}

/// A host's last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    host: usize,
    /// Enqueued steps, from the run's first.
    step: u64,
    /// It classifies held-out pictures meanwhile, and others wait.
    evaluates: bool,
    at: String,
}

/// Reports that a host still evaluates, until it is dropped.
pub struct Evaluating {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Evaluating {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Report {
    fn now(host: usize, step: u64, evaluates: bool) -> Self {
        Self {
            host,
            step,
            evaluates,
            at: utc(SystemTime::now()),
        }
    }

    /// A report that cannot be written does not stop the run.
    fn write(&self, path: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(Into::into)
            .and_then(|bytes| atomic::write_file(path, &bytes));
        if let Err(error) = written {
            tracing::warn!("the report of this host's step is not written: {error:#}");
        }
    }
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
            seen: None,
        })
    }

    fn path(&self, host: usize) -> PathBuf {
        folder(&self.out).join(format!("host-{host}.json"))
    }

    /// Reports that `step` steps are enqueued.
    pub fn beat(&mut self, step: u64) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= PAUSE);
        if self.hosts == 1 || !is_due {
            return;
        }
        self.last = Some(Instant::now());
        Report::now(self.host, step, false).write(&self.path(self.host));
    }

    /// Reports, for as long as the result lives, that this host evaluates.
    pub fn evaluating(&self, step: u64) -> Result<Evaluating> {
        let (done, is_done) = bounded::<()>(0);
        let (host, path) = (self.host, self.path(self.host));
        if self.hosts == 1 {
            return Ok(Evaluating {
                done: None,
                thread: None,
            });
        }
        let report = move || {
            loop {
                Report::now(host, step, true).write(&path);
                if is_done.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("heartbeat".into());
        Ok(Evaluating {
            done: Some(done),
            thread: Some(thread.spawn(report)?),
        })
    }

    /// Whether the leader still evaluates: its report says so and has changed
    /// since the last look.
    pub fn leader_evaluates(&mut self) -> bool {
        let report = match self.host {
            0 => None,
            _ => self.read(0).filter(|report| report.evaluates),
        };
        let is_new = report.is_some() && report != self.seen;
        self.seen = report;
        is_new
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
        host.beat(41);
        // Too soon for another.
        host.beat(42);
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

    #[test]
    fn who_waits_for_an_evaluation_sees_that_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let leader = Heartbeat::new(folder.path(), 0, 2).unwrap();
        let mut other = Heartbeat::new(folder.path(), 1, 2).unwrap();
        assert!(!other.leader_evaluates());
        let start = Instant::now();
        let evaluating = leader.evaluating(7).unwrap();
        // Twice: two reports that differ.
        for _look in 0..2 {
            while !other.leader_evaluates() {
                assert!(start.elapsed() < Duration::from_secs(60));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        drop(evaluating);
        other.leader_evaluates();
        assert!(!other.leader_evaluates(), "nothing new since");
    }
}

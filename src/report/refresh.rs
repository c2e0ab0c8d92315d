//! `report.html` while the run goes on.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::follow::Follower;
use super::page::write_report;
use crate::checkpoint::RunDir;

/// Between two pages at the least.
const EVERY: Duration = Duration::from_secs(60);
/// So many times as long as a page took there is none: under 1% of a core.
const REST: u32 = 100;

/// Writes the page of a run again and again, from a thread of its own, until
/// it is dropped. It reads the run's files as any reader does.
pub struct Refresher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Refresher {
    /// Only the holder of the run's lock may call it.
    pub fn start(run: &RunDir) -> Self {
        let (stop, stopped) = mpsc::channel();
        let mut follower = Follower::new(run.clone());
        let thread = thread::Builder::new().name("report".into()).spawn(move || {
            let mut rest = EVERY;
            while stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
                let begun = Instant::now();
                if let Err(error) = refresh(&mut follower) {
                    tracing::debug!("report.html stays as it was: {error:#}");
                }
                rest = EVERY.max(begun.elapsed() * REST);
            }
        });
        Refresher {
            stop: Some(stop),
            // A run without a page in between is a run all the same.
            thread: thread.ok(),
        }
    }
}

fn refresh(follower: &mut Follower) -> Result<()> {
    if follower.poll()? {
        write_report(std::slice::from_ref(follower), &follower.report_path())?;
    }
    Ok(())
}

impl Drop for Refresher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told what went wrong.
            let _ = thread.join();
        }
    }
}

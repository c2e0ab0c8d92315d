//! Saving beside the train loop.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use super::manifest::Origin;
use super::retention::Retention;
use super::run_dir::RunDir;
use super::state::Snapshot;
use super::writer::{Saved, save};

/// Saves checkpoints on a thread of its own, one at a time, and then deletes
/// what the retention rule lets go.
pub struct Saver {
    run: RunDir,
    origin: Origin,
    retention: Arc<Mutex<Retention>>,
    in_flight: Option<JoinHandle<Result<Saved>>>,
}

impl Saver {
    /// The caller holds the run's lock for as long as the saver lives.
    pub fn new(run: &RunDir, origin: Origin, retention: Retention) -> Self {
        Saver {
            run: run.clone(),
            origin,
            retention: Arc::new(Mutex::new(retention)),
            in_flight: None,
        }
    }

    /// Begins to save. `job` runs on the saving thread and yields the state:
    /// it may wait there for copies from the devices, and must first write out
    /// what has to be on disk before the checkpoint is.
    ///
    /// If the save before has not ended, this waits for it (two states at once
    /// in host memory are too many); what it did is returned, `None` if it has
    /// been told already.
    ///
    /// # Errors
    /// That of the save before. The new one is then not begun.
    pub fn save(
        &mut self,
        job: impl FnOnce() -> Result<Snapshot> + Send + 'static,
    ) -> Result<Option<Saved>> {
        let before = self.wait()?;
        let (run, origin) = (self.run.clone(), self.origin.clone());
        let retention = Arc::clone(&self.retention);
        let work = move || {
            let mut saved = save(&run, &job()?, &origin)?;
            saved.deleted = locked(&retention).apply(&run, saved.step)?;
            Ok(saved)
        };
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let handle = thread
            .spawn(work)
            .context("cannot start the saving thread")?;
        self.in_flight = Some(handle);
        Ok(before)
    }

    /// What the save under way did, if it has ended; never waits.
    ///
    /// # Errors
    /// That of the save.
    pub fn poll(&mut self) -> Result<Option<Saved>> {
        match &self.in_flight {
            Some(handle) if handle.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits until nothing is under way; returns what the last save did, `None`
    /// if it has been told already.
    ///
    /// # Errors
    /// That of the save.
    pub fn wait(&mut self) -> Result<Option<Saved>> {
        let Some(handle) = self.in_flight.take() else {
            return Ok(None);
        };
        let joined = handle.join();
        joined
            .unwrap_or_else(|_| Err(anyhow!("the saving thread panicked")))
            .map(Some)
    }

    /// Keeps the checkpoint of `step` from retention, from now on.
    pub fn pin(&self, step: u64) {
        locked(&self.retention).pinned.insert(step);
    }

    /// Takes back [`Saver::pin`].
    pub fn unpin(&self, step: u64) {
        locked(&self.retention).pinned.remove(&step);
    }

    /// Waits for the last save and ends.
    ///
    /// # Errors
    /// That of the save.
    pub fn finish(mut self) -> Result<Option<Saved>> {
        self.wait()
    }
}

impl Drop for Saver {
    /// A saver dropped on the way out of a failure still ends its save.
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            tracing::error!("{error:#}");
        }
    }
}

/// A panic elsewhere leaves the rule itself valid.
fn locked(retention: &Mutex<Retention>) -> MutexGuard<'_, Retention> {
    retention
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

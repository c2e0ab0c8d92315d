//! A key-value store that the processes of one job share: how hosts find each
//! other, and what a GPU plugin's processes exchange through its callbacks.

mod files;
#[cfg(feature = "rendezvous")]
mod redis;
mod session;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::bad_input;

pub use session::Session;

/// Thread-safe; what one process puts, all others get.
pub trait Store: Send + Sync {
    /// Sets a key.
    fn put(&self, key: &str, value: &[u8]) -> Result<()>;

    /// A key's value now; none where it has none.
    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>>;

    fn remove(&self, key: &str) -> Result<()>;

    /// For people: where it is.
    fn address(&self) -> String;

    /// A key's value, as soon as it has one.
    ///
    /// # Errors
    /// [`TimedOut`] after `timeout`.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(value) = self.try_get(key)? {
                return Ok(value);
            }
            if start.elapsed() >= timeout {
                return Err(TimedOut(key.to_owned(), timeout, self.address()).into());
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(100));
        }
    }
}

/// No process has set a key in time.
#[derive(Debug, thiserror::Error)]
#[error("nobody has set {0:?} within {1:?} in the store {2}")]
pub struct TimedOut(String, Duration, String);

impl TimedOut {
    /// The same of the last of several waits, which took so long together.
    pub fn within(self, whole: Duration) -> Self {
        Self(self.0, whole, self.2)
    }
}

/// Opens the store at an address: `file:/shared/folder`, or
/// `redis://HOST:PORT`.
///
/// # Errors
/// [`bad_input!`] for an address of no store, and for a store that is not
/// there.
pub fn open(address: &str) -> Result<Arc<dyn Store>> {
    match address.split_once(':') {
        Some(("file", folder)) if Path::new(folder).is_absolute() => {
            Ok(Arc::new(files::Files::open(Path::new(folder))?))
        }
        #[cfg(feature = "rendezvous")]
        Some(("redis" | "rediss", _)) => Ok(Arc::new(redis::Redis::open(address)?)),
        #[cfg(not(feature = "rendezvous"))]
        Some(("redis" | "rediss", _)) => Err(bad_input!(
            "the store {address} needs a build with `--features rendezvous`; a folder that all \
             hosts share does without: file:/shared/folder"
        )),
        _ => Err(bad_input!(
            "found the store {address:?}; expected file:/shared/folder (absolute, on all hosts) or \
             redis://HOST:PORT"
        )),
    }
}

/// `open`'s errors for a store that cannot be reached.
fn unreachable(address: &str, error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!(bad_input!(
        "the store {address} cannot be reached: {error}; is it running, and open to this host?"
    ))
}

//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Set by the first signal; the second ends the process at once.
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Listens to the signals from now on. Starts no thread.
    pub fn on_signals() -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: the first signal finds the flag not
            // set yet. 128 + signal is what shells report.
            flag::register_conditional_shutdown(signal, 128 + signal, requested.clone())
                .and_then(|_| flag::register(signal, requested.clone()))
                .context("cannot listen to signals")?;
        }
        Ok(Self(requested))
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

//! Environment variables that plugins read when they load or make a client.
//!
//! Changing the environment while another thread reads it is undefined
//! behaviour in C. So each of these works only while the process has a single
//! thread: early in `main`.

use anyhow::{Result, ensure};

/// Fixes the size of the CPU plugin's thread pool, on which the last bits of
/// its results depend. Before the client is made, early in `main`.
///
/// # Errors
/// If the process has more than one thread already, or `threads` is 0.
pub fn pin_threads(threads: usize) -> Result<()> {
    ensure!(threads > 0, "a thread pool needs at least one thread");
    set("NPROC", &threads.to_string())
}

/// The size that the thread pool has or will have.
pub fn pinned_threads() -> usize {
    std::env::var("NPROC")
        .ok()
        .and_then(|n| n.parse().ok())
        .filter(|&n| n > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Keeps XLA's own log lines off stderr, unless the user has chosen a level.
///
/// # Errors
/// If the process has more than one thread already.
pub fn quiet_plugin_logs() -> Result<()> {
    set_default("TF_CPP_MIN_LOG_LEVEL", "3")
}

/// Lets libtpu load and compile where no TPU is. Only for programs that
/// compile for a topology, never where a TPU is to be used.
///
/// # Errors
/// If the process has more than one thread already.
pub fn tpu_deviceless_env() -> Result<()> {
    set("TPU_SKIP_MDS_QUERY", "1")?;
    set_default("TPU_ACCELERATOR_TYPE", "v3-8")?;
    set_default("TPU_WORKER_HOSTNAMES", "localhost")?;
    set_default("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
}

fn set_default(name: &str, value: &str) -> Result<()> {
    match std::env::var_os(name) {
        Some(_) => Ok(()),
        None => set(name, value),
    }
}

fn set(name: &str, value: &str) -> Result<()> {
    let threads = threads();
    ensure!(
        threads <= 1,
        "{name} can only be set while the process has one thread; it has {threads}. \
         Set {name}={value} in the environment instead"
    );
    // SAFETY: no other thread exists that could read the environment.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

/// Number of threads of this process; 1 where the system does not tell.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test harness runs each test in a thread of its own beside `main`.
    #[test]
    fn refuses_beside_other_threads() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let error = pin_threads(2).unwrap_err().to_string();
        drop(stop);
        let _ = other.join();
        assert!(error.contains("NPROC=2"), "{error}");
        assert!(pin_threads(0).is_err());
    }
}

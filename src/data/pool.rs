//! Worker threads whose results come back in the order of the jobs.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender, unbounded};

/// Threads that turn jobs into results. The caller bounds how much is under
/// way by how much it submits before it takes. A panic in a job is an error
/// in its place, never a hang. Dropping the pool skips jobs not begun, and
/// joins the threads.
pub struct Pool<J, R> {
    jobs: Option<Sender<(u64, J)>>,
    results: Receiver<(u64, Result<R>)>,
    /// Results that came before their turn.
    early: BTreeMap<u64, Result<R>>,
    submitted: u64,
    taken: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static, R: Send + 'static> Pool<J, R> {
    /// `workers` threads (at least one), each with what `worker` made for it.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new<W>(workers: usize, worker: impl Fn() -> W) -> Result<Self>
    where
        W: FnMut(J) -> R + Send + 'static,
    {
        let (jobs, incoming) = unbounded();
        let (outgoing, results) = unbounded();
        let mut pool = Self {
            jobs: Some(jobs),
            results,
            early: BTreeMap::new(),
            submitted: 0,
            taken: 0,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for index in 0..workers.max(1) {
            let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
            let (stop, work) = (pool.stop.clone(), worker());
            let thread = thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || run(&incoming, &outgoing, &stop, work))
                .context("starting a data worker thread")?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Hands a job to the threads; never blocks.
    pub fn submit(&mut self, job: J) {
        let jobs = self.jobs.as_ref().expect("taken only in drop");
        // Threads end before the pool only if the process is failing; then
        // `take` says so.
        let _ = jobs.send((self.submitted, job));
        self.submitted += 1;
    }

    /// Jobs submitted whose results were not taken yet.
    pub fn under_way(&self) -> u64 {
        self.submitted - self.taken
    }

    /// Waits for the next result in the order of the jobs; `None` if nothing
    /// is under way.
    ///
    /// # Errors
    /// If that job panicked.
    pub fn take(&mut self) -> Option<Result<R>> {
        if self.under_way() == 0 {
            return None;
        }
        loop {
            if let Some(result) = self.early.remove(&self.taken) {
                self.taken += 1;
                return Some(result);
            }
            match self.results.recv() {
                Ok((at, result)) => self.early.insert(at, result),
                Err(_) => return Some(Err(anyhow!("the data worker threads ended"))),
            };
        }
    }
}

fn run<J, R>(
    incoming: &Receiver<(u64, J)>,
    outgoing: &Sender<(u64, Result<R>)>,
    stop: &AtomicBool,
    mut work: impl FnMut(J) -> R,
) {
    for (at, job) in incoming {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(job)))
            .map_err(|payload| anyhow!("a data worker panicked: {}", panic_text(&*payload)));
        if outgoing.send((at, result)).is_err() {
            return;
        }
    }
}

/// What a panic said.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

impl<J, R> Drop for Pool<J, R> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let mut pool = Pool::new(4, || {
            |n: u64| {
                thread::sleep(std::time::Duration::from_micros((n * 7919) % 500));
                n * n
            }
        })
        .unwrap();
        (0..200).for_each(|n| pool.submit(n));
        for n in 0..200 {
            assert_eq!(pool.take().unwrap().unwrap(), n * n);
        }
        assert!(pool.take().is_none());
    }

    #[test]
    fn a_panic_is_an_error_in_its_place() {
        let mut pool = Pool::new(2, || {
            |n: u32| {
                assert!(n != 1, "no ones");
                n
            }
        })
        .unwrap();
        (0..3).for_each(|n| pool.submit(n));
        assert_eq!(pool.take().unwrap().unwrap(), 0);
        let error = pool.take().unwrap().unwrap_err().to_string();
        assert!(error.contains("panicked: no ones"), "{error}");
        assert_eq!(pool.take().unwrap().unwrap(), 2);
    }

    #[test]
    fn dropping_skips_what_was_not_begun() {
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = count.clone();
        let mut pool = Pool::new(1, || {
            let counter = counter.clone();
            move |(): ()| {
                counter.fetch_add(1, Ordering::Relaxed);
                thread::sleep(std::time::Duration::from_millis(5));
            }
        })
        .unwrap();
        (0..1000).for_each(|_| pool.submit(()));
        drop(pool);
        assert!(count.load(Ordering::Relaxed) < 1000);
        assert_eq!(Arc::strong_count(&count), 2, "the thread is gone");
    }
}

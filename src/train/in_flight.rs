//! Steps enqueued and not finished.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use super::hosts;
use crate::pjrt::{Event, Pending};

/// A step that was enqueued.
pub struct Enqueued {
    /// Its number, from 1.
    pub step: u64,
    /// When it was enqueued, and how long its input took before that.
    pub at: Instant,
    pub input: Duration,
    /// For each device, that it is done.
    pub done: Vec<Event>,
    pub metrics: Pending,
}

/// A step that is done.
#[derive(Clone, Debug)]
pub struct Finished {
    pub step: u64,
    /// When it was enqueued, and how long its input took before that.
    pub at: Instant,
    pub input: Duration,
    /// When it was done.
    pub done: Instant,
    pub metrics: Vec<f32>,
}

/// The steps under way. A thread waits for them in their order and reads their
/// metrics back, so that the loop knows when each was done without waiting
/// itself.
pub struct InFlight {
    enqueued: Option<Sender<Enqueued>>,
    finished: Receiver<Result<Finished>>,
    /// Steps whose results were not taken yet, and the oldest one's number.
    count: usize,
    oldest: u64,
    /// How long a step may take.
    deadline: Duration,
    thread: Option<JoinHandle<()>>,
}

/// A program has not ended within the deadline.
#[derive(Debug, thiserror::Error)]
#[error("{program} of step {step} is not done in time")]
pub struct Late {
    pub program: &'static str,
    pub step: u64,
}

impl InFlight {
    pub fn new(deadline: Duration) -> Result<Self> {
        let (enqueued, incoming) = unbounded::<Enqueued>();
        let (outgoing, finished) = unbounded();
        let thread = std::thread::Builder::new().name("metrics".into());
        let thread = thread
            .spawn(move || {
                for step in incoming {
                    if outgoing.send(wait_for(step)).is_err() {
                        return;
                    }
                }
            })
            .context("cannot start the thread that reads metrics")?;
        Ok(Self {
            enqueued: Some(enqueued),
            finished,
            count: 0,
            oldest: 0,
            deadline,
            thread: Some(thread),
        })
    }

    pub fn push(&mut self, step: Enqueued) {
        if self.count == 0 {
            self.oldest = step.step;
        }
        let enqueued = self.enqueued.as_ref().expect("taken only in drop");
        // The thread ends early only by a panic; taking then says so.
        let _ = enqueued.send(step);
        self.count += 1;
    }

    /// The oldest step under way, once it is done. Waits only if there are
    /// more than `allowed`; `None` if it is not done, or if there is none.
    ///
    /// Time in which the wait is `excused`, as is asked now and then, does not
    /// count towards the deadline.
    ///
    /// # Errors
    /// That of the step; [`Late`].
    pub fn take(
        &mut self,
        allowed: usize,
        excused: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Finished>> {
        let result = match self.finished.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) if self.count <= allowed => return Ok(None),
            Err(_) => {
                let turn = |pause| match self.finished.recv_timeout(pause) {
                    Ok(result) => Ok(Some(result)),
                    Err(RecvTimeoutError::Timeout) => Ok(None),
                    Err(_) => Err(anyhow!("the thread that reads metrics ended")),
                };
                let Some(result) = hosts::wait(self.deadline, excused, turn)? else {
                    // It still waits for the device, and would be waited for.
                    self.thread = None;
                    let (program, step) = ("train_step", self.oldest);
                    return Err(Late { program, step }.into());
                };
                result
            }
        };
        self.count -= 1;
        self.oldest += 1;
        result.map(Some)
    }
}

fn wait_for(step: Enqueued) -> Result<Finished> {
    let number = step.step;
    let read = || -> Result<Finished> {
        for event in &step.done {
            event.wait()?;
        }
        let done = Instant::now();
        let bytes = step.metrics.wait()?;
        let (values, _) = bytes.as_chunks::<4>();
        Ok(Finished {
            step: step.step,
            at: step.at,
            input: step.input,
            done,
            metrics: values.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    };
    read().with_context(|| format!("step {number} failed"))
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.enqueued = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Learning rate and momentum as pure functions of the step.

use std::f64::consts::PI;

use anyhow::Result;
use serde::Serialize;

use super::method::{Method, MomentumSchedule};
use crate::bad_input;

/// Length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Length {
    #[serde(rename = "epochs")]
    Epochs(f64),
    #[serde(rename = "total_steps")]
    Steps(u64),
}

/// Length of the linear warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Warmup {
    #[serde(rename = "warmup_epochs")]
    Epochs(f64),
    #[serde(rename = "warmup_steps")]
    Steps(u64),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    #[serde(flatten)]
    pub length: Length,
    #[serde(flatten)]
    pub warmup: Warmup,
}

/// A schedule in steps: what remains once the size of the data is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedSchedule {
    pub total_steps: u64,
    pub warmup_steps: u64,
}

impl Schedule {
    /// Epochs to steps, rounded to the nearest. An epoch has `images / batch`
    /// steps, the last partial batch dropped.
    ///
    /// # Errors
    /// [`crate::error::BadInput`] if an epoch has no step, or if the warm-up
    /// is longer than the run.
    pub fn resolve(&self, steps_per_epoch: u64) -> Result<ResolvedSchedule> {
        if steps_per_epoch == 0 {
            return Err(bad_input!(
                "the training set has fewer pictures than one `batch`; lower `batch` or add pictures"
            ));
        }
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let resolved = ResolvedSchedule {
            total_steps: match self.length {
                Length::Epochs(epochs) => steps(epochs).max(1),
                Length::Steps(steps) => steps,
            },
            warmup_steps: match self.warmup {
                Warmup::Epochs(epochs) => steps(epochs),
                Warmup::Steps(steps) => steps,
            },
        };
        if resolved.warmup_steps > resolved.total_steps {
            return Err(bad_input!(
                "the warm-up ({}) is longer than the run ({}), at {steps_per_epoch} steps an \
                 epoch: {} steps against {}",
                self.warmup,
                self.length,
                resolved.warmup_steps,
                resolved.total_steps,
            ));
        }
        Ok(resolved)
    }
}

impl ResolvedSchedule {
    /// The learning rate of update `step`, counted from 0. With W warm-up and
    /// T total steps: `peak step / W` before W, so 0 at the first; then
    /// `peak / 2 (1 + cos(pi (step - W) / (T - W)))`, which reaches 0 at T.
    pub fn lr(&self, peak: f64, step: u64) -> f64 {
        let (step, warmup) = (step.min(self.total_steps) as f64, self.warmup_steps as f64);
        if step < warmup {
            return peak * step / warmup;
        }
        let span = (self.total_steps as f64 - warmup).max(1.0);
        peak / 2.0 * (1.0 + (PI * (step - warmup) / span).cos())
    }

    /// The momentum encoder's coefficient at update `step`. Cosine:
    /// `1 - (1 - m0) (1 + cos(pi step / T)) / 2`: m0 at the first step, 1 at T.
    pub fn momentum(&self, method: &Method, step: u64) -> f64 {
        let start = method.momentum;
        match method.momentum_schedule {
            MomentumSchedule::Constant => start,
            MomentumSchedule::Cosine => {
                let done = step.min(self.total_steps) as f64 / self.total_steps.max(1) as f64;
                1.0 - (1.0 - start) * (1.0 + (PI * done).cos()) / 2.0
            }
        }
    }
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Length::Epochs(epochs) => write!(f, "`schedule.epochs` {epochs}"),
            Length::Steps(steps) => write!(f, "`schedule.total_steps` {steps}"),
        }
    }
}

impl std::fmt::Display for Warmup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warmup::Epochs(epochs) => write!(f, "`schedule.warmup_epochs` {epochs}"),
            Warmup::Steps(steps) => write!(f, "`schedule.warmup_steps` {steps}"),
        }
    }
}

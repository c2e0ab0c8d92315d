//! What happens after which step.

use anyhow::Result;

use super::End;
use crate::bad_input;
use crate::config::{Length, ResolvedSchedule, RunConfig};
use crate::data::Sampler;

/// A run in steps. "After step n" means that n updates are done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub schedule: ResolvedSchedule,
    pub steps_per_epoch: u64,
    /// This process stops after so many.
    pub stop: u64,
    checkpoint_every: u64,
    evaluate_every: Option<u64>,
    evaluate_at_start: bool,
    classify_every: u64,
}

impl Plan {
    /// The plan for `images` training pictures, to stop early after `steps`.
    ///
    /// # Errors
    /// [`bad_input!`] for a batch that is larger than the data, a warm-up
    /// longer than the run, or a stop before the first step.
    pub fn new(config: &RunConfig, images: usize, steps: Option<u64>) -> Result<Self> {
        let sampler = Sampler::new(images, config.batch, config.seed)?;
        let steps_per_epoch = sampler.steps_per_epoch();
        let schedule = config.schedule.resolve(steps_per_epoch)?;
        if steps == Some(0) {
            return Err(bad_input!(
                "--steps is 0; expected the step to stop after, 1 to {}",
                schedule.total_steps
            ));
        }
        let total = schedule.total_steps;
        Ok(Self {
            steps_per_epoch,
            stop: steps.map_or(total, |steps| steps.min(total)),
            checkpoint_every: config.checkpoint.every_steps,
            evaluate_every: config.eval.interval(steps_per_epoch),
            evaluate_at_start: config.eval.at_start,
            classify_every: config.monitor.knn_every,
            schedule,
        })
    }

    /// Whether a checkpoint is due after step `step`.
    pub fn saves(&self, step: u64) -> bool {
        step == self.stop || step.is_multiple_of(self.checkpoint_every)
    }

    /// Whether the held-out pictures are to be classified after step `step`.
    pub fn evaluates(&self, step: u64) -> bool {
        match step {
            0 => self.evaluate_at_start,
            _ if step == self.stop => true,
            _ => self.evaluate_every.is_some_and(|n| step.is_multiple_of(n)),
        }
    }

    /// Whether step `step`, counted from 1, classifies its batch.
    pub fn classifies(&self, step: u64) -> bool {
        self.classify_every > 0 && step.is_multiple_of(self.classify_every)
    }

    /// Passes over the data done after step `step`.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }

    /// What it means to have ended after step `step` as planned.
    pub fn end_at(&self, step: u64) -> End {
        match step >= self.schedule.total_steps {
            true => End::Finished,
            false => End::Stopped,
        }
    }

    /// The length of the run in words.
    pub fn length(&self, config: &RunConfig) -> String {
        let total = self.schedule.total_steps;
        match config.schedule.length {
            Length::Epochs(epochs) => format!("{total} steps ({epochs} epochs)"),
            Length::Steps(_) => format!("{total} steps ({:.1} epochs)", self.epoch(total)),
        }
    }
}

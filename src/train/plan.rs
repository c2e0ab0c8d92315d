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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 10 steps an epoch, 25 in all.
    fn plan(steps: Option<u64>) -> Result<Plan> {
        let config = RunConfig::from_value(json!({
            "batch": 16,
            "optimizer": { "name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1 },
            "model": { "arch": "vit", "blocks": 1, "dim": 16, "heads": 2, "patch": 8, "image_size": 16 },
            "schedule": { "total_steps": 25, "warmup_steps": 2 },
            "checkpoint": { "every_steps": 8 },
            "monitor": { "knn_every": 0 },
            "eval": { "every_epochs": 1.0 },
        }))?;
        Plan::new(&config, 165, steps)
    }

    fn due(plan: &Plan, at: impl Fn(&Plan, u64) -> bool) -> Vec<u64> {
        (0..=plan.stop).filter(|&step| at(plan, step)).collect()
    }

    #[test]
    fn what_is_due_when() {
        let plan = plan(None).unwrap();
        assert_eq!(due(&plan, Plan::evaluates), [0, 10, 20, 25]);
        assert_eq!(
            due(&plan, |plan, step| step > 0 && plan.saves(step)),
            [8, 16, 24, 25]
        );
        assert_eq!(due(&plan, Plan::classifies), [0; 0]);
        assert_eq!(plan.epoch(5), 0.5);
        assert_eq!(plan.end_at(25), End::Finished);
    }

    #[test]
    fn an_early_stop_changes_nothing_but_the_end() {
        let (whole, early) = (plan(None).unwrap(), plan(Some(9)).unwrap());
        assert_eq!(early.schedule, whole.schedule);
        assert_eq!(due(&early, Plan::evaluates), [0, 9]);
        assert_eq!(early.end_at(9), End::Stopped);
        assert_eq!(plan(Some(99)).unwrap().stop, 25);
        assert!(plan(Some(0)).unwrap_err().is::<crate::error::BadInput>());
    }
}

//! Stage 1: the keys of a file, as written.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::RunConfig;
use super::method::WrittenMethod;
use super::model::WrittenModel;
use super::optimizer::WrittenOptimizer;
use super::schedule::{Length, Schedule, Warmup};
use super::sections::*;
use crate::bad_input;

/// A configuration file of xla-moco.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "xla-moco configuration")]
pub struct Written {
    /// For editors; has no effect.
    #[serde(rename = "$schema")]
    #[expect(dead_code, reason = "allowed in a file, read by nobody")]
    schema: Option<String>,
    /// A file that this one overrides, relative to it; at most one folder up.
    base: Option<String>,
    /// What a comment would say: title, source, command, published number.
    #[serde(default)]
    about: Map<String, Value>,
    /// Keys every random draw; 0 if absent.
    seed: Option<u64>,
    /// Pictures a step, over all devices.
    batch: usize,
    model: WrittenModel,
    #[serde(default)]
    method: WrittenMethod,
    optimizer: WrittenOptimizer,
    schedule: WrittenSchedule,
    #[serde(default)]
    data: Data,
    #[serde(default)]
    augment: Augment,
    #[serde(default)]
    mesh: Mesh,
    #[serde(default)]
    lowering: Lowering,
    /// Chunks that the backbone takes a batch in: memory falls, losses and
    /// gradients stay. Divides each device's part of the batch; absent: 1.
    accumulate: Option<usize>,
    #[serde(default)]
    crop_pass: CropPass,
    #[serde(default)]
    optimizer_sharding: OptimizerSharding,
    #[serde(default)]
    checkpoint: Checkpoint,
    #[serde(default)]
    monitor: Monitor,
    #[serde(default)]
    eval: Eval,
    #[serde(default)]
    on_unhealthy: OnUnhealthy,
    #[serde(default)]
    gpu: Gpu,
    /// The same bits from every run, on GPUs too, where they are not so by
    /// themselves; slower there.
    #[serde(default)]
    deterministic: bool,
    /// Options of XLA by their names (`xla_...`) for the train step: true,
    /// false, a number or text. A name that the plugin does not know is refused
    /// by its compiler.
    #[serde(default)]
    compiler_options: Map<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenSchedule {
    /// Length in epochs; this or `total_steps`.
    epochs: Option<f64>,
    /// Length in steps; this or `epochs`.
    total_steps: Option<u64>,
    /// Linear warm-up in epochs; this, `warmup_steps` or none.
    warmup_epochs: Option<f64>,
    warmup_steps: Option<u64>,
}

impl Written {
    /// Stage 2: fills in the defaults.
    ///
    /// # Errors
    /// Where keys exclude or need one another.
    pub(super) fn resolve(self) -> Result<RunConfig> {
        if let Some(base) = self.base {
            return Err(bad_input!(
                "`base` is {base:?}; it has a meaning only inside a file, not in an override"
            ));
        }
        let model = self.model.resolve()?;
        Ok(RunConfig {
            about: self.about,
            seed: self.seed.unwrap_or(0),
            batch: self.batch,
            method: self.method.resolve(&model)?,
            model,
            optimizer: self.optimizer.resolve()?,
            schedule: self.schedule.resolve()?,
            data: self.data,
            augment: self.augment,
            mesh: self.mesh,
            lowering: self.lowering,
            accumulate: self.accumulate.unwrap_or(1),
            crop_pass: self.crop_pass,
            optimizer_sharding: self.optimizer_sharding,
            checkpoint: self.checkpoint,
            monitor: self.monitor,
            eval: self.eval,
            on_unhealthy: self.on_unhealthy,
            gpu: self.gpu,
            deterministic: self.deterministic,
            compiler_options: self.compiler_options,
        })
    }
}

impl WrittenSchedule {
    fn resolve(self) -> Result<Schedule> {
        let length = match (self.epochs, self.total_steps) {
            (Some(epochs), None) => Length::Epochs(epochs),
            (None, Some(steps)) => Length::Steps(steps),
            (Some(epochs), Some(steps)) => {
                return Err(bad_input!(
                    "`schedule.epochs` ({epochs}) and `schedule.total_steps` ({steps}) are both \
                     given; the length is one of them: set the other to null"
                ));
            }
            (None, None) => {
                return Err(bad_input!(
                    "`schedule` gives no length; add `epochs` or `total_steps`"
                ));
            }
        };
        let warmup = match (self.warmup_epochs, self.warmup_steps) {
            (Some(epochs), None) => Warmup::Epochs(epochs),
            (None, steps) => Warmup::Steps(steps.unwrap_or(0)),
            (Some(epochs), Some(steps)) => {
                return Err(bad_input!(
                    "`schedule.warmup_epochs` ({epochs}) and `schedule.warmup_steps` ({steps}) \
                     are both given; keep one and set the other to null"
                ));
            }
        };
        Ok(Schedule { length, warmup })
    }
}

//! JSON to a checked run configuration, in two stages.
//!
//! 1. What was written ([`Written`]): the keys of the file, its `base` files
//!    and the `--set` overrides, merged. Unknown keys and values of the wrong
//!    type fail here, with their path and the nearest known key.
//! 2. What it means ([`RunConfig`]): every default filled in, every value and
//!    combination checked. It is written to `config.json` of a run, and
//!    resolving that file gives the same configuration again.
//!
//! A key whose value is `null` counts as absent, so a file can take back what
//! its base says.

mod checks;
mod diff;
mod explain;
mod method;
mod model;
mod optimizer;
mod read;
mod recipes;
mod schedule;
mod sections;
mod supervised;
mod warnings;
mod written;

#[cfg(test)]
mod tests;

pub use checks::word;
pub use diff::{Difference, Effect, diff_that_matters, differences};
pub use explain::schema;
pub use method::{
    Crops, Head, HeadNorm, LossScale, Method, MethodName, MomentumSchedule, Negatives, Swav,
};
pub use model::*;
pub use optimizer::{Group, Optimizer, OptimizerName, Rule};
pub use read::{Override, layered, merged};
pub use recipes::{Recipe, nearest as nearest_recipe};
pub use schedule::{Length, ResolvedSchedule, Schedule, Warmup};
pub use sections::*;
pub use supervised::Supervised;
pub use written::Written;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// A run, resolved and checked. Serialised, it is the run's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunConfig {
    /// Where the recipe comes from: title, source, command, published number.
    pub about: Map<String, Value>,
    /// Keys every random draw of the run.
    pub seed: u64,
    /// Pictures a step, over all devices.
    pub batch: usize,
    pub model: Model,
    pub method: Method,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub data: Data,
    pub augment: Augment,
    pub mesh: Mesh,
    pub lowering: Lowering,
    /// Chunks that the backbone takes a batch in; 1 for the whole at once.
    pub accumulate: usize,
    pub crop_pass: CropPass,
    pub optimizer_sharding: OptimizerSharding,
    pub checkpoint: Checkpoint,
    pub monitor: Monitor,
    pub eval: Eval,
    pub on_unhealthy: OnUnhealthy,
    pub gpu: Gpu,
    /// The same bits from every run, on GPUs too.
    pub deterministic: bool,
    /// Options of XLA for the train step, by their names.
    pub compiler_options: Map<String, Value>,
}

impl RunConfig {
    /// Reads a file, merges it over its bases, applies the overrides in
    /// order, and resolves the result.
    ///
    /// # Errors
    /// [`crate::error::BadInput`] for anything that is wrong in what was
    /// written, with the key's path.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self> {
        let context = || {
            let mut text = format!("configuration {}", path.display());
            for (index, entry) in overrides.iter().enumerate() {
                text += if index == 0 { " with " } else { ", " };
                text += &entry.to_string();
            }
            text
        };
        read::merged(path)
            .and_then(|value| read::apply(value, overrides))
            .and_then(Self::from_value)
            .with_context(context)
    }

    /// Resolves a configuration that is already JSON, such as the one that a
    /// checkpoint carries.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn from_value(value: Value) -> Result<Self> {
        let config = explain::parse(read::without_nulls(value))?.resolve()?;
        config.check()?;
        Ok(config)
    }

    /// As [`RunConfig::from_value`], with overrides.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn from_written(value: Value, overrides: &[Override]) -> Result<Self> {
        read::apply(value, overrides).and_then(Self::from_value)
    }

    /// The configuration as JSON: what `config.json` holds.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a configuration has only string keys")
    }

    /// The learning rate after warm-up: `base_lr * batch / 256` (Sec. 4.1,
    /// "Learning rate").
    pub fn peak_lr(&self) -> f64 {
        self.optimizer.base_lr * self.batch as f64 / 256.0
    }
}

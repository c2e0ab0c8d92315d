//! Stage 1: the keys of a file, as written.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::method::WrittenMethod;
use super::optimizer::WrittenOptimizer;
use super::schedule::{Length, Schedule, Warmup};
use super::sections::*;
use super::{RunConfig, checks};
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
    /// Batches that make one update; only 1 so far.
    accumulate: Option<usize>,
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
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenModel {
    arch: Arch,
    /// Transformer blocks; needed by, and only free with, arch "vit".
    blocks: Option<usize>,
    /// Width; as `blocks`.
    dim: Option<usize>,
    /// Attention heads; as `blocks`.
    heads: Option<usize>,
    /// MLP width over `dim`; 4 if absent.
    mlp_ratio: Option<usize>,
    /// Side of a patch in pixels; 16 if absent, 14 for "vit_huge".
    patch: Option<usize>,
    /// Side of the input in pixels; 224 if absent.
    image_size: Option<usize>,
    #[serde(default)]
    patch_projection: PatchProjection,
    #[serde(default)]
    compute_dtype: ComputeDtype,
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
        Ok(RunConfig {
            about: self.about,
            seed: self.seed.unwrap_or(0),
            batch: self.batch,
            model: self.model.resolve()?,
            method: self.method.resolve(),
            optimizer: self.optimizer.resolve()?,
            schedule: self.schedule.resolve()?,
            data: self.data,
            augment: self.augment,
            mesh: self.mesh,
            lowering: self.lowering,
            accumulate: self.accumulate.unwrap_or(1),
            optimizer_sharding: self.optimizer_sharding,
            checkpoint: self.checkpoint,
            monitor: self.monitor,
            eval: self.eval,
            on_unhealthy: self.on_unhealthy,
        })
    }
}

impl WrittenModel {
    fn resolve(self) -> Result<Model> {
        // Blocks, dim, heads: Table 2; ViT-S with 12 heads, not timm's 6.
        let named = match self.arch {
            Arch::VitSmall => Some((12, 384, 12)),
            Arch::VitBase => Some((12, 768, 12)),
            Arch::VitLarge => Some((24, 1024, 16)),
            Arch::VitHuge => Some((32, 1280, 16)),
            Arch::Vit => None,
        };
        let arch = checks::word(&self.arch);
        let size = |key: &str, written: Option<usize>, named: Option<usize>| match (written, named)
        {
            (Some(written), Some(named)) if written != named => Err(bad_input!(
                "`model.{key}` is {written}, but `model.arch` \"{arch}\" has {named}; \
                 leave `model.{key}` out, or set `model.arch` to \"vit\" and give \
                 `blocks`, `dim` and `heads`"
            )),
            (None, None) => Err(bad_input!(
                "`model.{key}` is missing; `model.arch` \"vit\" needs `blocks`, `dim` and `heads`"
            )),
            (Some(size), _) | (None, Some(size)) => Ok(size),
        };
        Ok(Model {
            blocks: size("blocks", self.blocks, named.map(|n| n.0))?,
            dim: size("dim", self.dim, named.map(|n| n.1))?,
            heads: size("heads", self.heads, named.map(|n| n.2))?,
            mlp_ratio: self.mlp_ratio.unwrap_or(4),
            patch: self.patch.unwrap_or(match self.arch {
                Arch::VitHuge => 14,
                _ => 16,
            }),
            image_size: self.image_size.unwrap_or(224),
            arch: self.arch,
            patch_projection: self.patch_projection,
            compute_dtype: self.compute_dtype,
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

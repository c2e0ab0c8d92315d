//! The fastest settings that fit: what `xla-moco plan` tries.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::compile::report;
use super::facts::{keep, kept};
use super::report::Report;
use super::target::Machine;
use crate::config::{CropPass, Crops, OptimizerSharding, RunConfig};
use crate::graph::block::Lowering;
use crate::models;
use crate::programs::train_step::{self, TrainStep};

/// All that was tried, and which of it to take.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub tried: Vec<Trial>,
    /// The fastest that fits, in `tried`; none where nothing does.
    pub best: Option<usize>,
}

/// Settings, and what they come to.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    #[serde(serialize_with = "lowering_name")]
    pub lowering: Lowering,
    pub optimizer_sharding: OptimizerSharding,
    pub crop_pass: CropPass,
    pub fits: bool,
    /// By the compiler.
    pub used_bytes: Option<u64>,
    /// The step's seconds on one device by which it is ranked, an estimate:
    /// the compiler's, else our roofline, of the program without loops that
    /// does the same work, and our model of the network. None where that
    /// program is refused.
    pub ranked_seconds: Option<f64>,
    /// `compiler` or `roofline`.
    pub seconds_from: &'static str,
    pub interconnect_seconds: Option<f64>,
    pub compile_seconds: f64,
}

fn lowering_name<S: serde::Serializer>(
    lowering: &Lowering,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(lowering.name())
}

impl Trial {
    fn of(step: &TrainStep, report: &Report) -> Self {
        let network = report.interconnect_seconds;
        let seconds = report.estimated_seconds.or_else(|| {
            let is_told = report.refusal.is_none();
            is_told.then_some(report.roofline_seconds)
        });
        Self {
            lowering: step.lowering,
            optimizer_sharding: step.config.optimizer_sharding,
            crop_pass: step.config.crop_pass,
            fits: report.fits,
            used_bytes: report.used_bytes,
            ranked_seconds: seconds.map(|seconds| seconds + network.unwrap_or(0.0)),
            seconds_from: report.pace.pace_from,
            interconnect_seconds: network,
            compile_seconds: report.compile_seconds,
        }
    }
}

impl Plan {
    fn of(mut tried: Vec<Trial>) -> Self {
        // A loop does what `remat` does, and an estimate of it would count its
        // body once.
        for i in 0..tried.len() {
            let twin = tried.iter().find(|trial| {
                trial.lowering == Lowering::Remat
                    && trial.optimizer_sharding == tried[i].optimizer_sharding
                    && trial.crop_pass == tried[i].crop_pass
            });
            if let (Lowering::Scan, Some(twin)) = (tried[i].lowering, twin) {
                let (seconds, from) = (twin.ranked_seconds, twin.seconds_from);
                let network = twin.interconnect_seconds;
                tried[i].ranked_seconds = seconds.or(tried[i].ranked_seconds);
                tried[i].seconds_from = from;
                tried[i].interconnect_seconds = network;
            }
        }
        let fitting = tried.iter().enumerate().filter(|(_, trial)| trial.fits);
        // A roofline is a lower bound: it does not win against an estimate.
        let best = fitting.min_by(|(_, a), (_, b)| {
            let is_bound = |trial: &Trial| trial.seconds_from == "roofline";
            let seconds = |trial: &Trial| trial.ranked_seconds.unwrap_or(f64::INFINITY);
            (is_bound(a).cmp(&is_bound(b))).then(seconds(a).total_cmp(&seconds(b)))
        });
        let best = best.map(|(i, _)| i);
        Self { tried, best }
    }

    pub fn best(&self) -> Option<&Trial> {
        self.best.map(|i| &self.tried[i])
    }
}

/// Tries every lowering with both crops in one pass and the optimizer's state
/// on every device; then, for the fastest lowering that fits and for those that
/// do not, the state split over the devices; and for the fastest, the crops one
/// after the other. What it finds is kept for [`recommended`].
///
/// # Errors
/// The compiler's, except that a program does not fit.
pub fn plan(machine: &Machine, step: &TrainStep) -> Result<Plan> {
    let (stacked, replicated) = (CropPass::Stacked, OptimizerSharding::Replicated);
    let mut tried = Vec::new();
    for lowering in models::lowerings(&step.config.model) {
        tried.push(attempt(machine, step, lowering, replicated, stacked)?);
    }
    let plan = Plan::of(tried);
    let mut tried = plan.tried.clone();
    if machine.devices > 1 {
        for (i, trial) in plan.tried.iter().enumerate() {
            if plan.best == Some(i) || !trial.fits {
                let zero1 = OptimizerSharding::Zero1;
                tried.push(attempt(machine, step, trial.lowering, zero1, stacked)?);
            }
        }
    }
    let bn_of_both = step.config.method.bn_crops == Crops::Together;
    let is_possible = !(bn_of_both && step.config.model.has_batch_norm());
    if is_possible && let Some(best) = Plan::of(tried.clone()).best() {
        let (lowering, sharding) = (best.lowering, best.optimizer_sharding);
        tried.push(attempt(machine, step, lowering, sharding, CropPass::Apart)?);
    }
    let plan = Plan::of(tried);
    remember(machine, step, &plan)?;
    Ok(plan)
}

fn attempt(
    machine: &Machine,
    step: &TrainStep,
    lowering: Lowering,
    optimizer_sharding: OptimizerSharding,
    crop_pass: CropPass,
) -> Result<Trial> {
    tracing::info!(
        "trying lowering={}, optimizer_sharding={}, crop_pass={}",
        lowering.name(),
        optimizer_sharding.name(),
        crop_pass.name()
    );
    let config = with(step.config, optimizer_sharding, crop_pass);
    let step = TrainStep {
        config: &config,
        lowering,
        ..*step
    };
    Ok(Trial::of(&step, &report(machine, &step, None)?))
}

fn with(
    config: &RunConfig,
    optimizer_sharding: OptimizerSharding,
    crop_pass: CropPass,
) -> RunConfig {
    RunConfig {
        optimizer_sharding,
        crop_pass,
        ..config.clone()
    }
}

/// Keeps the best lowering for all other settings where [`recommended`] finds
/// it.
fn remember(machine: &Machine, step: &TrainStep, plan: &Plan) -> Result<()> {
    let settings = |trial: &Trial| (trial.optimizer_sharding, trial.crop_pass);
    let mut done = Vec::new();
    for trial in &plan.tried {
        let (sharding, crop_pass) = settings(trial);
        if done.contains(&(sharding, crop_pass)) {
            continue;
        }
        done.push((sharding, crop_pass));
        let alike = plan.tried.iter().filter(|t| settings(t) == settings(trial));
        let plan = Plan::of(alike.cloned().collect());
        if let Some(best) = plan.best() {
            let config = with(step.config, sharding, crop_pass);
            let step = TrainStep {
                config: &config,
                ..*step
            };
            let file = of_step(&step, &machine.device_kind)?;
            keep(&file, best.lowering.name().as_bytes())?;
        }
    }
    Ok(())
}

/// The lowering that an earlier [`plan`] of this machine's user found to be the
/// fastest that fits, for the same step on the same kind and number of devices.
///
/// # Errors
/// If the step cannot be built.
pub fn recommended(step: &TrainStep, device_kind: &str) -> Result<Option<Lowering>> {
    let name = std::fs::read(of_step(step, device_kind)?).unwrap_or_default();
    let mut all = models::lowerings(&step.config.model);
    Ok(all.find(|lowering| lowering.name().as_bytes() == name))
}

/// The file that holds the name of a step's best lowering.
fn of_step(step: &TrainStep, device_kind: &str) -> Result<PathBuf> {
    let unrolled = TrainStep {
        lowering: Lowering::Unrolled,
        ..*step
    };
    let mut hash = Sha256::new();
    hash.update(device_kind);
    hash.update([0]);
    hash.update(train_step::build(&unrolled)?.text());
    kept(&hash.finalize(), "lowering")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(lowering: Lowering, fits: bool, seconds: Option<f64>) -> Trial {
        Trial {
            lowering,
            optimizer_sharding: OptimizerSharding::Replicated,
            crop_pass: CropPass::Stacked,
            fits,
            used_bytes: None,
            ranked_seconds: seconds,
            seconds_from: "compiler",
            interconnect_seconds: None,
            compile_seconds: 1.0,
        }
    }

    #[test]
    fn the_fastest_that_fits_is_best_and_a_loop_ranks_as_its_unrolled_twin() {
        let plan = Plan::of(vec![
            trial(Lowering::Unrolled, false, Some(1.0)),
            trial(Lowering::RematMlp, true, Some(2.0)),
            trial(Lowering::Remat, true, Some(3.0)),
            // What an estimate that counts the loop's body once would say.
            trial(Lowering::Scan, true, Some(0.1)),
        ]);
        assert_eq!(plan.best().unwrap().lowering, Lowering::RematMlp);
        assert_eq!(plan.tried[3].ranked_seconds, Some(3.0));
        let nothing = Plan::of(vec![trial(Lowering::Unrolled, false, None)]);
        assert!(nothing.best().is_none());
    }
}

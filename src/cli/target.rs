//! A configuration on devices that need not be there.

use anyhow::Result;

use super::ConfigArgs;
use crate::config::{Override, RunConfig};
use crate::pjrt;
use crate::plan::{Machine, Target};
use crate::programs::train_step::{TrainStep, TrainingSet, Views};
use crate::train::Pictures;

#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// The devices: tpu:GENERATION:CHIPS, gpu:NAME:N or cpu:N
    ///
    /// Such as tpu:v3:8x16 (128 chips of two devices each), tpu:v4:4x4x4,
    /// gpu:h100:8, cpu:4. None but the CPU's need be there.
    #[arg(long, value_name = "TARGET")]
    pub target: String,

    /// The bare step on finished views: without augmentation and monitors
    ///
    /// For comparison with programs that lack these.
    #[arg(long)]
    pub core: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl TargetArgs {
    /// As [`open`].
    pub fn open(&self) -> Result<(Machine, RunConfig)> {
        let mut args = self.config.clone();
        if self.core {
            args.set.push(Override::new("monitor.in_step", false));
        }
        open(Some(&self.target), &args)
    }

    pub fn step<'a>(&self, config: &'a RunConfig) -> TrainStep<'a> {
        match self.core {
            false => TrainStep::of_run(config, training_set(config)),
            true => TrainStep {
                views: Views::Normalised,
                queue: 0,
                ..TrainStep::of_run(config, TrainingSet::IMAGENET)
            },
        }
    }
}

/// A target's compiler, and the configuration on all of its devices. Without a
/// target, the CPU's, for as many devices as the configuration has.
pub fn open(target: Option<&str>, args: &ConfigArgs) -> Result<(Machine, RunConfig)> {
    let target = match target {
        Some(text) => text.parse()?,
        None => Target::Cpu(args.load()?.mesh.data),
    };
    if matches!(target, Target::Tpu(_)) && !pjrt::tpu_is_present() {
        pjrt::tpu_deviceless_env()?;
    }
    let machine = Machine::new(&target)?;
    let mut args = args.clone();
    args.set.push(Override::new("mesh.data", machine.devices));
    Ok((machine, args.load()?))
}

/// What the step has to know of the training pictures, which may be elsewhere.
fn training_set(config: &RunConfig) -> TrainingSet {
    match Pictures::of(config) {
        Ok(pictures) => pictures.training_set(),
        Err(error) => {
            tracing::warn!(
                "assuming ImageNet's 1,281,167 pictures of 1000 classes, since the training \
                 pictures cannot be opened ({error:#})"
            );
            TrainingSet::IMAGENET
        }
    }
}

//! `xla-moco compile`.

use anyhow::Result;

use super::{ConfigArgs, print};
use crate::config::{Override, RunConfig};
use crate::pjrt;
use crate::plan::{self, Machine, Target};
use crate::programs::train_step::{TrainStep, TrainingSet, Views};
use crate::train::Pictures;

/// Compile the train step for devices that need not be there
///
/// Prints whether it fits, its memory, its biggest arrays, its collectives,
/// and estimates of its time. All of the target's devices share the batch
/// (mesh.data). Exits with 1 if it does not fit.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco compile --config configs/quickstart.json --target cpu:4
  xla-moco compile --config configs/paper/moco_v3_vit_b16_300ep.json --target tpu:v3:8x16 --json
  xla-moco compile --config configs/paper/moco_v3_vit_b16_300ep.json --target gpu:h100:8 \\
      --price-per-device-hour 2.5")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// The devices: tpu:GENERATION:CHIPS, gpu:NAME:N or cpu:N
    ///
    /// Such as tpu:v3:8x16 (128 chips of two devices each), tpu:v4:4x4x4,
    /// gpu:h100:8, cpu:4. None but the CPU's need be there.
    #[arg(long, value_name = "TARGET")]
    pub target: String,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// What a device costs an hour: adds the price of 100 epochs
    #[arg(long, value_name = "PRICE")]
    pub price_per_device_hour: Option<f64>,

    /// The bare step on finished views: without augmentation and kNN monitor
    ///
    /// For comparison with programs that lack these.
    #[arg(long)]
    pub core: bool,
}

/// The step does not fit into the target's memory: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("the step does not fit into a device's memory on {0}")]
struct DoesNotFit(String);

/// What is assumed where the training pictures are not here.
const IMAGENET: TrainingSet = TrainingSet {
    images: 1_281_167,
    classes: 1000,
};

pub fn run(mut args: Args) -> Result<()> {
    let target: Target = args.target.parse()?;
    if matches!(target, Target::Tpu(_)) && !pjrt::tpu_is_present() {
        pjrt::tpu_deviceless_env()?;
    }
    let machine = Machine::new(&target)?;
    let devices = Override::new("mesh.data", machine.devices);
    args.config.set.push(devices);
    let config = args.config.load()?;
    let set = match args.core {
        true => IMAGENET,
        false => training_set(&config),
    };
    let mut step = TrainStep::of_run(&config, set, &machine.platform);
    if args.core {
        step.views = Views::Normalised;
        step.queue = 0;
    }
    let report = plan::compile(&machine, &step, args.price_per_device_hour)?;
    match args.json {
        true => print(&format!("{:#}\n", report.to_json()))?,
        false => print(&report.text())?,
    }
    match report.fits {
        true => Ok(()),
        false => Err(DoesNotFit(args.target).into()),
    }
}

/// What the step has to know of the training pictures, which may be elsewhere.
fn training_set(config: &RunConfig) -> TrainingSet {
    match Pictures::open(&config.data) {
        Ok(pictures) => pictures.training_set(),
        Err(error) => {
            tracing::warn!(
                "assuming ImageNet's 1,281,167 pictures of 1000 classes, since the training \
                 pictures cannot be opened ({error:#})"
            );
            IMAGENET
        }
    }
}

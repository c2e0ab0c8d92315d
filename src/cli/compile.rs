//! `xla-moco compile`.

use anyhow::Result;

use super::print;
use super::target::TargetArgs;
use crate::{plan, programs};

/// Compile the train step for devices that need not be there
///
/// Prints whether it fits, its memory, its biggest arrays, its collectives,
/// and estimates of its time. All of the target's devices share the batch
/// (mesh.data). What the compiler said is kept, so that the same question is
/// answered at once. Exits with 1 if the step does not fit.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco compile --config configs/quickstart.json --target cpu:4
  xla-moco compile --config configs/paper/moco_v3_vit_b16_300ep.json --target tpu:v3:8x16 --json
  xla-moco compile --config configs/paper/moco_v3_vit_b16_300ep.json --target gpu:h100:8 \\
      --price-per-device-hour 2.5")]
pub struct Args {
    #[command(flatten)]
    pub target: TargetArgs,

    /// What a device costs an hour: adds the price of 100 epochs
    #[arg(long, value_name = "PRICE")]
    pub price_per_device_hour: Option<f64>,
}

/// The step does not fit into the target's memory: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("the step does not fit into a device's memory on {0}")]
pub(super) struct DoesNotFit(pub String);

pub fn run(args: Args) -> Result<()> {
    let (machine, config) = args.target.open()?;
    let mut step = args.target.step(&config);
    let is_open = programs::lowering(&config).is_none();
    if is_open && let Some(best) = plan::recommended(&step, &machine.device_kind)? {
        step.lowering = best;
    }
    let report = plan::compile(&machine, &step, is_open, args.price_per_device_hour)?;
    match args.target.json {
        true => print(&format!("{:#}\n", report.to_json()))?,
        false => print(&report.text())?,
    }
    match report.fits {
        true => Ok(()),
        false => Err(DoesNotFit(args.target.target).into()),
    }
}

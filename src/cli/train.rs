//! `xla-moco train`.

use std::path::PathBuf;

use anyhow::Result;

use super::{ConfigArgs, PjrtArgs};

/// Pre-train a model, or go on with a run
///
/// Writes a run folder with the resolved configuration, metrics and
/// checkpoints. The same command again resumes from the newest checkpoint.
/// Ctrl-C finishes the step, saves and stops.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco train --config configs/quickstart.json
  xla-moco train --config configs/quickstart.json --data ~/pictures --out runs/mine
  xla-moco train --config configs/quickstart.json --steps 120 --set checkpoint.every_steps=50")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(flatten)]
    pub pjrt: PjrtArgs,

    /// The run folder; by default runs/ and the configuration's file name
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Stop after this step, with a checkpoint; the schedule stays as it is
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
}

pub fn run(_args: Args) -> Result<()> {
    Err(super::not_built("train"))
}

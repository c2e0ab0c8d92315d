//! `xla-moco export`.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::{ConfigArgs, PjrtArgs};

/// Write the very program that train runs
///
/// Forward, backward, momentum update and optimizer in one module, with the
/// scope's name on every op.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco export --config configs/quickstart.json --format stablehlo --out step.mlir
  xla-moco export --config configs/quickstart.json --format hlo-optimized --pjrt cpu")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(flatten)]
    pub pjrt: PjrtArgs,

    #[arg(long, value_enum)]
    pub format: Format,

    /// Which program
    #[arg(long, value_enum, default_value_t = Program::TrainStep)]
    pub program: Program,

    /// Where to; stdout by default
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The text that plugins are given
    Stablehlo,
    /// XLA's own form before its passes
    Hlo,
    /// XLA's own form as it runs on the plugin
    HloOptimized,
    /// A picture of the graph for Graphviz
    Dot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Program {
    /// One whole step of training
    TrainStep,
    /// Class-token features of the base encoder in evaluation form
    Features,
}

pub fn run(_args: Args) -> Result<()> {
    Err(super::not_built("export"))
}

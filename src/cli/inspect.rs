//! `xla-moco inspect`.

use anyhow::Result;

use super::ConfigArgs;

/// Show what a configuration resolves to: parameters and FLOPs of each part
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  xla-moco inspect --config configs/paper/moco_v3_vit_b16_300ep.json")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Show how each array lies on the mesh
    #[arg(long)]
    pub shardings: bool,
}

pub fn run(_args: Args) -> Result<()> {
    Err(super::not_built("inspect"))
}

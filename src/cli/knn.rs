//! `xla-moco knn`.

use std::path::PathBuf;

use anyhow::Result;

use super::PjrtArgs;

/// Classify held-out pictures by their nearest neighbours' classes
///
/// Uses class-token features of the base encoder in evaluation form, without
/// augmentation. All training pictures are the bank, all test pictures the
/// queries.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  xla-moco knn --checkpoint runs/quickstart --data pictures/train --test pictures/test --json")]
pub struct Args {
    /// A run folder (its newest checkpoint) or one checkpoint
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub checkpoint: PathBuf,

    /// The labelled bank; by default the run's training pictures
    #[arg(long, value_name = "TRAIN")]
    pub data: Option<String>,

    /// The queries; by default the test split that belongs to the bank
    #[arg(long, value_name = "TEST")]
    pub test: Option<String>,

    /// Neighbours that vote
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub k: u32,

    /// Print one JSON object (top1 in percent) and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

pub fn run(_args: Args) -> Result<()> {
    Err(super::not_built("knn"))
}

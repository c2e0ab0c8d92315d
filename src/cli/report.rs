//! `xla-moco report`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::print;
use crate::report::{self, Align};

/// Write a page of a run, or of up to six runs beside each other
///
/// One file that needs nothing else: it opens offline, in any browser. Reads
/// the runs' folders alone, also while they train. Of one run it is the page
/// that training writes into its folder, as report.html.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco report runs/quickstart
  xla-moco report runs/frozen runs/learned --out patch.html
  xla-moco report runs/batch-256 runs/batch-1024 --align samples")]
pub struct Args {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,

    /// The page; by default report.html, of one run in its folder
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// What runs are compared by; the page can change it
    #[arg(long, value_enum, default_value_t = By::Step)]
    pub align: By,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum By {
    Step,
    /// Pictures seen: steps times batch
    Samples,
}

pub fn run(args: &Args) -> Result<()> {
    let align = match args.align {
        By::Step => Align::Step,
        By::Samples => Align::Samples,
    };
    let out = match (&args.out, &args.runs[..]) {
        (Some(out), _) => out.clone(),
        (None, [run]) => run.join("report.html"),
        (None, _) => PathBuf::from("report.html"),
    };
    report::compare(&args.runs, align, &out)
        .with_context(|| format!("cannot make the report {}", out.display()))?;
    print(&format!("{}\n", out.display()))
}

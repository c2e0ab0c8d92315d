//! `xla-moco export`.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::training_set;
use super::{ConfigArgs, print};
use crate::bad_input;
use crate::checkpoint::atomic;
use crate::config::RunConfig;
use crate::graph::graphviz::graphviz;
use crate::pjrt::install::{self, ResolveOptions};
use crate::pjrt::{self, Client, ClientOptions, CompileOptions, HloText};
use crate::programs::train_step::{self, TrainStep};
use crate::programs::{self, features};
use crate::train::{Pictures, first_arguments};

/// Write the very program that train runs
///
/// Forward, backward, momentum update and optimizer in one module, with the
/// scope's name on every op. Beside a StableHLO file FILE.mlir, its arguments
/// and results are listed in FILE.signature.json.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco export --config configs/quickstart.json --format stablehlo --out step.mlir
  xla-moco export --config configs/quickstart.json --format stablehlo --out step.mlir \\
      --arguments step.safetensors
  xla-moco export --config configs/quickstart.json --format hlo-optimized --pjrt cpu
  xla-moco export --config configs/quickstart.json --format dot | dot -Tsvg > step.svg")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[arg(long, value_enum)]
    pub format: Format,

    /// Which program
    #[arg(long, value_enum, default_value_t = Program::TrainStep)]
    pub program: Program,

    /// The PJRT plugin whose HLO is written: cpu, gpu, tpu, or the path of a
    /// plugin's library
    #[arg(long, value_name = "PLUGIN", default_value = "cpu")]
    pub pjrt: String,

    /// Parts of scope names that are drawn by themselves (dot)
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub depth: usize,

    /// Where to; stdout by default
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Also write the arguments of the run's first step, as safetensors
    #[arg(long, value_name = "FILE")]
    pub arguments: Option<PathBuf>,
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

pub fn run(args: Args) -> Result<()> {
    let config = args.config.load()?;
    if args.arguments.is_some() && args.program != Program::TrainStep {
        return Err(bad_input!(
            "--arguments are those of a run's first step: expected --program train_step"
        ));
    }
    let program = match args.program {
        Program::TrainStep => {
            // Without its arguments a step can do without pictures.
            let pictures = match args.arguments {
                Some(_) => Some(Pictures::open(&config.data)?),
                None => training_set::pictures(&config),
            };
            let set = pictures.as_ref().map(Pictures::training_set);
            let set = set.unwrap_or(training_set::UNKNOWN);
            let program = train_step::build(&TrainStep::of_run(&config, set))?;
            if let (Some(path), Some(pictures)) = (&args.arguments, &pictures) {
                let arguments = first_arguments(&config, pictures, &program)?;
                atomic::replace(path, |file| arguments.write(file).map(|_| ()))?;
            }
            program
        }
        Program::Features => features::build(&config, config.batch, features::Form::Unit)?,
    };
    let text = match args.format {
        Format::Stablehlo => program.text(),
        Format::Dot => graphviz(&program.graph, args.depth),
        Format::Hlo => hlo(&program, &args.pjrt, &config)?.before_optimizations,
        Format::HloOptimized => hlo(&program, &args.pjrt, &config)?.after_optimizations,
    };
    let Some(out) = &args.out else {
        return print(&text);
    };
    atomic::write_file(out, text.as_bytes())?;
    if args.format == Format::Stablehlo {
        let signature = format!("{:#}\n", program.signature());
        atomic::write_file(&out.with_extension("signature.json"), signature.as_bytes())?;
    }
    Ok(())
}

fn hlo(program: &programs::Program, pjrt: &str, config: &RunConfig) -> Result<HloText> {
    let plugin = install::load(pjrt, &ResolveOptions::default())?;
    let devices = config.mesh.data;
    let options = ClientOptions {
        devices: Some(devices),
        ..ClientOptions::default()
    };
    let client = Client::new(&plugin, &options)?;
    let options = CompileOptions {
        num_partitions: devices,
        ..CompileOptions::default()
    };
    let text = program.text();
    let compile =
        |options: &CompileOptions| client.compile(&pjrt::Program { text: &text }, options);
    Ok(pjrt::export_hlo(&options, None, compile)?.1)
}

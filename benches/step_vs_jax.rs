//! Our train step against an equivalent one written in JAX, both through our
//! client on one plugin. docs/benchmarks.md says how to run it, and what came
//! out.

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use support::exported::Exported;
use support::ours::{self, Extras};
use support::paired::Pairs;
use support::{Runner, Step};
use xla_moco::pjrt::{Client, CompileOptions, OptionValue};

/// Time our train step against JAX's, in interleaved pairs
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench step_vs_jax --")]
struct Args {
    /// Folders written by `python tools/bench_jax.py --preset NAME --out DIR`
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,

    /// Pairs of steps to time, at least 30 for a result that is to be kept
    #[arg(long, value_name = "N", default_value_t = 30)]
    pairs: usize,

    /// The PJRT plugin: cpu, or the path of a plugin's library
    #[arg(long, value_name = "PLUGIN", default_value = "cpu")]
    pjrt: String,

    /// Compare this step, in a folder of the same form, in place of ours
    #[arg(long, value_name = "DIR")]
    instead: Option<PathBuf>,

    /// Compile ours with an XLA option
    #[arg(long, value_name = "NAME=VALUE", value_parser = xla_option)]
    xla: Vec<(String, OptionValue)>,

    /// Compare with JAX's step only, not with ours that augments and monitors
    #[arg(long)]
    bare: bool,

    /// Write StableHLO and optimised HLO of both into this folder
    #[arg(long, value_name = "DIR")]
    hlo: Option<PathBuf>,

    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn xla_option(text: &str) -> Result<(String, OptionValue)> {
    let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
    let value = if let Ok(value) = value.parse() {
        OptionValue::Bool(value)
    } else if let Ok(value) = value.parse() {
        OptionValue::Int(value)
    } else if let Ok(value) = value.parse() {
        OptionValue::Float(value)
    } else {
        OptionValue::Text(value.to_owned())
    };
    Ok((name.to_owned(), value))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("step_vs_jax: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let client = support::client(&args.pjrt)?;
    println!("{}", client.plugin().path().display());
    println!("{}", client.platform_version());
    args.folders.iter().try_for_each(|folder| {
        compare(&client, folder, args).with_context(|| format!("{}", folder.display()))
    })
}

fn compare(client: &Arc<Client>, folder: &Path, args: &Args) -> Result<()> {
    let jax = Exported::read(folder)?;
    let ours = match &args.instead {
        Some(folder) => Exported::read(folder)?.step,
        None => ours::step(&jax.config, Extras::Nothing)?,
    };
    println!("\n{} {:?}", folder.display(), jax.config);
    let options = CompileOptions {
        env_overrides: args.xla.clone(),
        ..CompileOptions::default()
    };
    let compile = |name: &str, step: &Step, options: &CompileOptions| {
        let (executable, hlo) = step.compile(client, options)?;
        if let Some(folder) = &args.hlo {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{name}.mlir")), &step.text)?;
            std::fs::write(folder.join(format!("{name}.hlo")), &hlo.after_optimizations)?;
        }
        anyhow::Ok(executable)
    };
    let pairs = |what: &str, a: &mut Runner, b: &mut Runner| {
        let pairs = Pairs::measure(args.pairs, || Ok(a.step()?.0), || Ok(b.step()?.0))?;
        report(what, &pairs);
        anyhow::Ok(())
    };
    let bare = compile("ours", &ours, &options)?;
    let mut bare = Runner::new(client, &ours, &bare, &jax.values)?;
    {
        let theirs = compile("jax", &jax.step, &CompileOptions::default())?;
        let mut theirs = Runner::new(client, &jax.step, &theirs, &jax.values)?;
        check_agreement(&mut bare, &mut theirs)?;
        pairs("ours / JAX", &mut bare, &mut theirs)?;
    }
    if args.bare || args.instead.is_some() {
        return Ok(());
    }
    for (name, extras) in [
        ("augmented", Extras::Augmentation),
        ("monitored", Extras::Monitor),
    ] {
        let step = ours::step(&jax.config, extras)?;
        let executable = compile(name, &step, &options)?;
        let classifying: &[bool] = match extras {
            Extras::Monitor => &[false, true],
            _ => &[false],
        };
        for &classify in classifying {
            let mut values = jax.values.clone();
            ours::add_values(&jax.config, &step, classify, &mut values)?;
            let mut more = Runner::new(client, &step, &executable, &values)?;
            more.step()?; // The first one finds nothing warm.
            let what = if classify { "and classifying" } else { name };
            pairs(&format!("{what} / bare"), &mut more, &mut bare)?;
        }
    }
    Ok(())
}

/// Relative difference that the losses of a step and of those after it may
/// have. The first is the same computation. Adam's first updates are near the
/// sign of the gradient, also where that is rounding alone (the keys' bias), so
/// that later losses show only that both learn the same.
const TOLERANCES: [f32; 3] = [1e-5, 1e-2, 1e-2];

fn check_agreement(ours: &mut Runner, jax: &mut Runner) -> Result<()> {
    for (step, tolerance) in TOLERANCES.into_iter().enumerate() {
        let (a, b) = (ours.loss()?, jax.loss()?);
        println!("step {step}: loss {a} ours, {b} JAX's");
        ensure!(
            (a - b).abs() <= tolerance * b.abs(),
            "step {step}: our loss is {a}, JAX's {b}; they are to agree to {tolerance} \
             before their times mean anything"
        );
    }
    Ok(())
}

fn report(what: &str, pairs: &Pairs) {
    let wall = pairs.compare(|time| time.wall);
    let processor = pairs.compare(|time| time.processor);
    for (kind, c) in [("clock", wall), ("processors", processor)] {
        println!(
            "{what} ({kind}): {:.3} [{:.3}, {:.3}]  ({:.1} ms, {:.1} ms)",
            c.ratio,
            c.interval.0,
            c.interval.1,
            1e3 * c.first,
            1e3 * c.second
        );
    }
}

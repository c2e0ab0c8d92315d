//! Memory of a training process over 2,000 steps: the whole command, on
//! procedural pictures, watched from outside. docs/benchmarks.md says how to
//! run it, and what came out.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::json;

/// Watch the memory of a training of a tiny model
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench memory_flat --")]
struct Args {
    #[arg(long, value_name = "N", default_value_t = 2000)]
    steps: usize,

    /// Print the memory after each so many steps
    #[arg(long, value_name = "N", default_value_t = 100)]
    every: usize,

    /// The PJRT plugin: cpu, or the path of a plugin's library
    #[arg(long, value_name = "PLUGIN", default_value = "cpu")]
    pjrt: String,

    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory_flat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A tiny run with everything in it: decoding workers, augmentation, the
/// monitor, checkpoints.
fn config(steps: usize) -> serde_json::Value {
    let head = json!({"hidden": 64, "out": 32});
    json!({
        "batch": 32,
        "model": {
            "arch": "vit", "blocks": 2, "dim": 32, "heads": 2, "patch": 8, "image_size": 32,
            "compute_dtype": "f32",
        },
        "method": {"name": "moco_v3", "projector": head, "predictor": head},
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": steps, "warmup_steps": 10},
        "data": {
            "path": "synthetic",
            "synthetic": {"images": 1024, "test_images": 256, "size": 40},
        },
        "checkpoint": {"every_steps": 200},
        "monitor": {"knn_every": 20},
    })
}

fn run(args: &Args) -> Result<()> {
    ensure!(args.every > 0, "--every must be at least 1");
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("config.json"), config(args.steps).to_string())?;
    let log = path("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(["train", "--config"])
        .arg(path("config.json"))
        .arg("--out")
        .arg(path("run"))
        .args(["--pjrt", &args.pjrt])
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()
        .context("cannot start xla-moco")?;
    let samples = watch(&mut child, &path("run").join("metrics.jsonl"), args.every)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("training: {status}\n{}", fs::read_to_string(&log)?);
    }
    report(&samples)
}

/// After so many steps, so many KiB resident.
type Sample = (usize, u64);

/// Samples until the process ends.
fn watch(child: &mut Child, metrics: &Path, every: usize) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    while child.try_wait()?.is_none() {
        let text = fs::read(metrics).unwrap_or_default();
        let steps = text.iter().filter(|byte| **byte == b'\n').count();
        let next = samples
            .last()
            .map_or(1, |(last, _)| last - last % every + every);
        if steps >= next
            && let Some(resident) = resident_kib(child.id())
        {
            println!("step {steps}: {:.1} MiB", resident as f64 / 1024.0);
            samples.push((steps, resident));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(samples)
}

/// None once the process has ended.
fn resident_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The trend of the second half by least squares, beside the level.
fn report(samples: &[Sample]) -> Result<()> {
    let half = &samples[samples.len() / 2..];
    ensure!(half.len() > 2, "too few samples to tell a trend");
    let n = half.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|s| s.0 as f64), mean(&|s| s.1 as f64));
    let covariance = mean(&|s| (s.0 as f64 - x) * (s.1 as f64 - y));
    let variance = mean(&|s| (s.0 as f64 - x).powi(2));
    println!(
        "second half: {:.1} MiB, trend {:+.3} KiB a step",
        y / 1024.0,
        covariance / variance
    );
    Ok(())
}

//! `xla-moco bench`.

use std::fmt::Write;

use anyhow::Result;

use super::{ConfigArgs, PjrtArgs, print};
use crate::train::{BenchOptions, BenchReport, Timing, bench};

/// Time the train step of a configuration on a plugin's devices
///
/// Compiles it and runs it on one batch that stays on the devices, then with
/// pictures that are read as in a run. Prints a step's time with its spread,
/// pictures a second, the share of the devices' peak that the model's matrix
/// products make use of (MFU), and the most memory held. Writes no run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco bench --config configs/quickstart.json
  xla-moco bench --config configs/paper/moco_v3_vit_b16_300ep.json --pjrt gpu --set batch=256 \\
      --data synthetic --json")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(flatten)]
    pub pjrt: PjrtArgs,

    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub steps: usize,

    /// Steps before those
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub warmup: usize,

    /// The bare step on finished views: without augmentation and monitors
    ///
    /// For comparison with programs that lack these. Nothing is read then.
    #[arg(long)]
    pub core: bool,

    /// What a device can do, for the MFU, where its data sheet is not known
    #[arg(long, value_name = "TFLOPS")]
    pub peak_tflops: Option<f64>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(mut args: Args) -> Result<()> {
    if args.core {
        let off = crate::config::Override::new("monitor.in_step", false);
        args.config.set.push(off);
    }
    let report = bench(&BenchOptions {
        config: args.config.load()?,
        pjrt: args.pjrt.pjrt,
        compile_cache: !args.pjrt.no_compile_cache,
        steps: args.steps,
        warmup: args.warmup,
        core: args.core,
        peak_tflops: args.peak_tflops,
    })?;
    match args.json {
        true => print(&format!("{:#}\n", serde_json::to_value(&report)?)),
        false => print(&text(&report)?),
    }
}

fn text(report: &BenchReport) -> Result<String> {
    let mut text = String::new();
    let what = match report.core {
        true => "the bare train step",
        false => "the train step",
    };
    writeln!(
        text,
        "{what}: {} x {:?} ({}), batch {}, {} px, {}, lowering {}, accumulate {}",
        report.devices,
        report.device_kind,
        report.platform,
        report.batch,
        report.image_size,
        crate::config::word(&report.compute_dtype),
        report.lowering,
        report.accumulate,
    )?;
    let from = match report.compiled_from_cache {
        true => "from the compile cache",
        false => "compiled",
    };
    writeln!(text, "{from} in {:.1} s", report.compile_seconds)?;
    line(&mut text, "without input", &report.without_input)?;
    if let Some(timing) = &report.with_input {
        line(&mut text, "with input", timing)?;
    }
    if let (Some(bytes), Some(from)) = (report.peak_memory_bytes, report.peak_memory_from) {
        let gib = bytes as f64 / f64::from(1 << 30);
        writeln!(
            text,
            "memory        {gib:.2} GiB on a device (by the {from})"
        )?;
    }
    if report.peak_flops.is_none() {
        writeln!(
            text,
            "no MFU: the peak of {:?} is not known; give it with --peak-tflops",
            report.device_kind
        )?;
    }
    Ok(text)
}

fn line(text: &mut String, what: &str, timing: &Timing) -> Result<()> {
    let spread = &timing.step_seconds;
    let ms = |seconds: f64| 1e3 * seconds;
    write!(
        text,
        "{what:<14}{:.2} ms a step (10% to 90%: {:.2} to {:.2}), {:.1} images/s",
        ms(spread.median),
        ms(spread.p10),
        ms(spread.p90),
        timing.images_per_second,
    )?;
    if let Some(mfu) = timing.mfu {
        write!(text, ", MFU {:.1}%", 100.0 * mfu)?;
    }
    if timing.input_wait > 0.0 {
        write!(text, ", input wait {:.1}%", 100.0 * timing.input_wait)?;
    }
    writeln!(text)?;
    if !timing.last_loss.is_finite() {
        writeln!(
            text,
            "  its loss is {}: it computes nothing sound",
            timing.last_loss
        )?;
    }
    Ok(())
}

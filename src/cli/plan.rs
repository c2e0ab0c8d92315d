//! `xla-moco plan`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::compile::DoesNotFit;
use super::print;
use super::table::aligned;
use super::target::TargetArgs;
use crate::bad_input;
use crate::checkpoint::atomic;
use crate::config::{Override, RunConfig};
use crate::graph::cost::amount;
use crate::plan::{self, Plan, Trial};

/// Find the fastest settings that fit a target
///
/// Compiles the train step for the target with every lowering, and with the
/// optimizer's state on every device or split over them, and ranks what fits
/// by estimates. The recommendation is kept: `lowering: \"auto\"` takes it from
/// then on, and a second call compiles nothing. Exits with 1 if nothing fits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco plan --config configs/paper/moco_v3_vit_h14_300ep.json --target tpu:v3:16x16
  xla-moco plan --config configs/paper/moco_v3_vit_h14_300ep.json --target tpu:v3:16x16 \\
      --write h14_on_512_cores.json
  xla-moco plan --config configs/quickstart.json --target cpu:2 --json")]
pub struct Args {
    #[command(flatten)]
    pub target: TargetArgs,

    /// Write the configuration with the recommended settings, whole, to a new file
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    if let Some(path) = args.write.as_deref().filter(|path| path.exists()) {
        return Err(bad_input!(
            "--write {}: there is such a file already; give the name of a new one",
            path.display()
        ));
    }
    let (machine, config) = args.target.open()?;
    let plan = plan::plan(&machine, &args.target.step(&config))?;
    let target = &args.target.target;
    match args.target.json {
        true => {
            let object = json!({
                "target": target,
                "devices": machine.devices,
                "batch": config.batch,
                "tried": plan.tried,
                "recommended": plan.best(),
            });
            print(&format!("{object:#}\n"))?;
        }
        false => print(&text(&plan, target))?,
    }
    let Some(best) = plan.best() else {
        return Err(DoesNotFit(args.target.target).into());
    };
    match &args.write {
        Some(path) => write(path, &args.target, machine.devices, best),
        None => Ok(()),
    }
}

fn text(plan: &Plan, target: &str) -> String {
    let head = [
        "lowering",
        "optimizer state",
        "fits",
        "memory of a device",
        "s/step",
        "of these network",
        "by",
        "compiled in",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let seconds = |seconds: Option<f64>| seconds.map_or("?".to_owned(), |s| format!("{s:.4}"));
    for (i, trial) in plan.tried.iter().enumerate() {
        let mark = if plan.best == Some(i) { " <-" } else { "" };
        rows.push([
            trial.lowering.name().to_owned(),
            trial.optimizer_sharding.name().to_owned(),
            if trial.fits { "yes" } else { "no" }.to_owned(),
            trial
                .used_bytes
                .map_or("?".to_owned(), |bytes| amount(bytes as f64, "B")),
            seconds(trial.ranked_seconds),
            seconds(trial.interconnect_seconds),
            trial.seconds_from.to_owned(),
            format!("{:.0} s{mark}", trial.compile_seconds),
        ]);
    }
    let verdict = match plan.best() {
        Some(best) => format!(
            "recommended for {target}: lowering={} optimizer_sharding={}",
            best.lowering.name(),
            best.optimizer_sharding.name()
        ),
        None => format!("nothing fits {target}: take more devices, or a smaller batch"),
    };
    format!(
        "{}\nSeconds are estimates: the compiler's of compute and memory (or our roofline), and our \
         model of the network.\nA scan ranks as remat, which does the same work without a loop.\n\
         {verdict}\n",
        aligned(&rows)
    )
}

fn write(path: &Path, args: &TargetArgs, devices: usize, best: &Trial) -> Result<()> {
    let mut config = args.config.clone();
    for (key, value) in [
        ("lowering", best.lowering.name()),
        ("optimizer_sharding", best.optimizer_sharding.name()),
    ] {
        config.set.push(Override::new(key, value));
    }
    config.set.push(Override::new("mesh.data", devices));
    let config: RunConfig = config.load()?;
    atomic::write_file(path, format!("{:#}\n", config.to_value()).as_bytes())
}

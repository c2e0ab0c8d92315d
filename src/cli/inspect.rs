//! `xla-moco inspect`.

mod shardings;

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::table::{aligned, grouped};
use super::training_set::{UNKNOWN, pictures};
use super::{ConfigArgs, print};
use crate::config::{Method, MomentumSchedule, PatchProjection, RunConfig, word};
use crate::graph::cost::{self, amount};
use crate::methods;
use crate::programs::Program;
use crate::programs::summary::{Part, summary};
use crate::programs::train_step::{self, TrainStep, TrainingSet};

/// Show what a configuration resolves to: parameters and FLOPs of each part
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco inspect --config configs/paper/moco_v3_vit_b16_300ep.json
  xla-moco inspect --config configs/quickstart.json --devices 4 --shardings")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Show how each array lies on the mesh
    #[arg(long)]
    pub shardings: bool,
}

pub fn run(args: Args) -> Result<()> {
    let config = args.config.load()?;
    let set = pictures(&config).map(|pictures| pictures.training_set());
    // The lowering is that of the platform which `train` takes by default.
    let spec = TrainStep::of_run(&config, set.unwrap_or(UNKNOWN), "cpu");
    let program = train_step::build(&spec)?;
    let mut text = described(&config, set, &spec, &program)?;
    text += "\n";
    text += &model(&config)?;
    if args.shardings {
        text += "\n";
        text += &shardings::picture(&program);
    }
    print(&text)
}

/// The method and its numbers, as far as it has them.
fn numbers(method: &Method) -> String {
    let mut text = word(&method.name);
    if let Some(temperature) = method.temperature {
        text += &format!(", temperature {temperature}");
    }
    if method.name.has_momentum_encoder() {
        text += &match method.momentum_schedule {
            MomentumSchedule::Cosine => format!(", momentum {} to 1 (cosine)", method.momentum),
            MomentumSchedule::Constant => format!(", momentum {} (constant)", method.momentum),
        };
    }
    if let Some(swav) = &method.swav {
        text += &format!(", {} prototypes", swav.prototypes);
    }
    text
}

/// What the configuration resolves to, a line for each matter.
fn described(
    config: &RunConfig,
    set: Option<TrainingSet>,
    spec: &TrainStep,
    program: &Program,
) -> Result<String> {
    let mut text = String::new();
    if let Some(title) = config.about.get("title").and_then(Value::as_str) {
        writeln!(text, "{title}\n")?;
    }
    let (model, method) = (&config.model, &config.method);
    writeln!(
        text,
        "model      {} blocks, {} wide, {} heads, MLP {}; {} px in patches of {}: {} tokens",
        model.blocks,
        model.dim,
        model.heads,
        model.mlp_ratio * model.dim,
        model.image_size,
        model.patch,
        1 + model.patches()
    )?;
    writeln!(
        text,
        "           computes in {}, {} patch projection",
        crate::models::compute_dtype(model.compute_dtype).mlir(),
        match model.patch_projection {
            PatchProjection::Frozen => "frozen random",
            PatchProjection::Learned => "learned",
        }
    )?;
    writeln!(
        text,
        "method     {}, chance loss {:.3}",
        numbers(method),
        methods::chance_loss(config)
    )?;
    let optimizer = &config.optimizer;
    writeln!(
        text,
        "optimizer  {}, peak lr {:e} ({:e} x {} / 256), weight decay {}",
        word(&optimizer.name()),
        config.peak_lr(),
        optimizer.base_lr,
        config.batch,
        optimizer.weight_decay
    )?;
    let devices = config.mesh.data;
    writeln!(
        text,
        "batch      {} pictures, {} on each of {devices} device{}",
        grouped(config.batch as u64),
        grouped((config.batch / devices) as u64),
        if devices == 1 { "" } else { "s" }
    )?;
    writeln!(text, "data       {}", data(config, set))?;
    writeln!(text, "schedule   {}", schedule(config, set)?)?;
    writeln!(
        text,
        "monitor    {}",
        match spec.queue {
            0 => "off".to_owned(),
            rows => format!(
                "kNN of the last {} features, every {} steps",
                grouped(rows as u64),
                config.monitor.knn_every
            ),
        }
    )?;
    let state = &program.graph.inputs[..program.state];
    let bytes: usize = state.iter().map(|input| input.value.shape.bytes()).sum();
    writeln!(
        text,
        "step       {} lowering, {} ops, {} a picture, {} of state in {} arrays",
        format!("{:?}", spec.lowering).to_lowercase(),
        grouped(program.graph.nodes().len() as u64),
        amount(
            cost::matmul_flops(&program.graph) as f64 / config.batch as f64,
            "FLOP"
        ),
        amount(bytes as f64, "B"),
        state.len()
    )?;
    Ok(text)
}

fn data(config: &RunConfig, set: Option<TrainingSet>) -> String {
    let path = &config.data.path;
    match set {
        None => format!("{path} (not here)"),
        Some(set) if set.classes == 0 => {
            format!(
                "{path}: {} pictures, no classes",
                grouped(set.images as u64)
            )
        }
        Some(set) => format!(
            "{path}: {} pictures, {} classes",
            grouped(set.images as u64),
            set.classes
        ),
    }
}

fn schedule(config: &RunConfig, set: Option<TrainingSet>) -> Result<String> {
    let Some(set) = set else {
        let schedule = &config.schedule;
        return Ok(format!("{}, {}", schedule.length, schedule.warmup).replace('`', ""));
    };
    let per_epoch = (set.images / config.batch) as u64;
    let steps = config.schedule.resolve(per_epoch)?;
    Ok(format!(
        "{} steps, warm-up {}; {} steps an epoch: {:.1} epochs",
        grouped(steps.total_steps),
        grouped(steps.warmup_steps),
        grouped(per_epoch),
        steps.total_steps as f64 / per_epoch as f64
    ))
}

/// Parameters and multiply-adds of each part, for one picture forward.
fn model(config: &RunConfig) -> Result<String> {
    let summary = summary(config)?;
    let row = |indent: &str, part: &Part| {
        [
            format!("{indent}{}", part.name),
            grouped(part.parameters as u64),
            amount(part.multiply_adds as f64, ""),
        ]
    };
    let mut rows = vec![["", "parameters", "multiply-adds"].map(str::to_owned)];
    rows.extend(summary.parts.iter().map(|part| row("  ", part)));
    for part in [
        &summary.backbone,
        &summary.classifier,
        &summary.projector,
        &summary.predictor,
        &summary.all,
    ] {
        rows.push(row("", part));
    }
    Ok(aligned(&rows))
}

//! `xla-moco inspect`.

mod shardings;

use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use super::table::{aligned, grouped};
use super::target;
use super::training_set::{UNKNOWN, pictures};
use super::{ConfigArgs, print};
use crate::config::{
    Backbone, Method, Model, MomentumSchedule, PatchProjection, Position, RunConfig, word,
};
use crate::graph::cost::{self, amount};
use crate::methods;
use crate::plan;
use crate::programs::Program;
use crate::programs::summary::{Part, summary};
use crate::programs::train_step::{self, TrainStep, TrainingSet};

/// Show what a configuration resolves to: parameters and FLOPs of each part
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco inspect --config configs/paper/moco_v3_vit_b16_300ep.json
  xla-moco inspect --config configs/quickstart.json --devices 4 --shardings
  xla-moco inspect --config configs/paper/moco_v3_vit_b16_300ep.json --shardings \\
      --target tpu:v3:8x16")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Show how each array lies on the mesh, and what the devices exchange
    #[arg(long)]
    pub shardings: bool,

    /// Whose compiler is asked for that, as `compile` takes it; by default the
    /// CPU's, for as many devices as the configuration says
    #[arg(long, value_name = "TARGET", requires = "shardings")]
    pub target: Option<String>,
}

pub fn run(args: Args) -> Result<()> {
    let (machine, config) = match (args.shardings, &args.target) {
        (false, _) => (None, args.config.load()?),
        (true, target) => {
            let (machine, config) = target::open(target.as_deref(), &args.config)?;
            (Some(machine), config)
        }
    };
    let set = pictures(&config).map(|pictures| pictures.training_set());
    let spec = TrainStep::of_run(&config, set.unwrap_or(UNKNOWN));
    let program = train_step::build(&spec)?;
    let mut text = described(&config, set, &spec, &program)?;
    text += "\n";
    text += &model(&config)?;
    if let Some(machine) = machine {
        text += "\n";
        text += &shardings::picture(&program);
        text += "\n";
        text += &plan::report(&machine, &spec, None)?.collectives_text();
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

/// The backbone and its numbers.
fn backbone(model: &Model) -> String {
    let size = model.image_size;
    match &model.backbone {
        Backbone::Vit(vit) => format!(
            "{} blocks, {} wide, {} heads, MLP {}, {} norm before it\n           {size} px in \
             patches of {}: {} tokens; {} projection, {} positions, output \"{}\"",
            vit.blocks,
            vit.dim,
            vit.heads,
            vit.mlp_ratio * vit.dim,
            word(&vit.mlp_norm),
            vit.patch,
            vit.tokens(size),
            match vit.patch_projection {
                PatchProjection::Frozen => "frozen random",
                PatchProjection::Learned => "learned",
                PatchProjection::BatchNorm => "batch-normalised",
                PatchProjection::WeightNorm => "weight-normalised",
                PatchProjection::ConvStem => "convolutional",
            },
            match vit.position {
                Position::SinCos => "sin-cos",
                Position::Learned => "learned",
                Position::None => "no",
            },
            word(&vit.output),
        ),
        Backbone::ResNet(net) => format!(
            "ResNet of {} {} blocks in {} stages, {} wide to {}, {} stem; {size} px",
            net.stages.iter().sum::<usize>(),
            word(&net.block),
            net.stages.len(),
            net.width,
            model.features(),
            word(&net.stem),
        ),
    }
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
    writeln!(text, "model      {}", backbone(model))?;
    writeln!(
        text,
        "           computes in {}",
        crate::models::compute_dtype(model.compute_dtype).mlir(),
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
        "step       {} lowering, {}{} ops, {} a picture, {} of state in {} arrays",
        spec.lowering.name(),
        match config.accumulate {
            1 => String::new(),
            chunks => format!("{chunks} chunks, "),
        },
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

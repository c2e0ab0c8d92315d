//! `xla-moco finetune`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::{PjrtArgs, print, status, train as cli_train};
use crate::bad_input;
use crate::config::{self, Override, RunConfig};
use crate::convert::{self, Hints};
use crate::train::{self, End, Options, Outcome, Pictures};

/// What is trained unless a configuration is given.
const RECIPE: &str = include_str!("../../configs/finetune/imagenet_vit_b16_150ep.json");

/// Train a classifier and all of the backbone on labelled pictures
///
/// From the weights of a run, or of a file of another tool, or from scratch.
/// Without --config by DeiT's recipe: AdamW, RandAugment, mixup, CutMix, label
/// smoothing, random erasing, stochastic depth. The model is that of the weights,
/// its patch projection and positions learned; positions are interpolated where
/// the pictures have another size. A run as that of `train`: it has a folder,
/// checkpoints, metrics and a report, and the same command resumes it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco finetune --checkpoint runs/mine --data pictures/train --test pictures/test \
--set batch=128 --set schedule.epochs=30
  xla-moco finetune --checkpoint vit-b-300ep.pth.tar --config \
configs/finetune/flowers102_vit_b16_100ep.json --data flowers102 --out runs/flowers
  xla-moco finetune --config configs/cifar10/finetune_vit_micro.json --data cifar10   # from scratch")]
pub struct Args {
    /// The weights to start from: a run, a checkpoint, a file (.pth.tar,
    /// .safetensors) or a folder of another tool; without it from scratch
    #[arg(long, value_name = "RUN|CHECKPOINT|FILE")]
    pub checkpoint: Option<PathBuf>,

    /// The recipe, such as configs/finetune/cifar10_vit_b16_100ep.json
    #[arg(long, value_name = "FILE", required_unless_present = "checkpoint")]
    pub config: Option<PathBuf>,

    /// Labelled training pictures, in place of the recipe's
    #[arg(long, value_name = "TRAIN")]
    pub data: Option<String>,

    /// Labelled test pictures; by default the test split that belongs to the
    /// training pictures
    #[arg(long, value_name = "TEST")]
    pub test: Option<String>,

    /// Set one key of the recipe, such as optimizer.base_lr=1e-4
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<Override>,

    /// The seed of every random draw
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Attention heads of weights that do not say how many they have
    #[arg(long, value_name = "N", requires = "checkpoint")]
    pub heads: Option<usize>,

    /// The run folder; by default runs/finetune- and the names of the recipe and
    /// of the weights
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Stop after this step, with a checkpoint; the schedule stays as it is
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,

    /// Print one JSON object (top1 in percent) and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

/// # Errors
/// [`bad_input!`] for weights, a recipe or data that cannot be used; those of
/// [`train::run`].
pub fn run(args: Args) -> Result<()> {
    let config = config(&args)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let outcome = train::run(&Options {
        out: match &args.out {
            Some(out) => out.clone(),
            None => default_out(&args)?,
        },
        config,
        pjrt: args.pjrt.pjrt.clone(),
        compile_cache: !args.pjrt.no_compile_cache,
        steps: args.steps,
        continue_from: args.checkpoint.clone(),
        job: None,
    })?;
    match args.json {
        true => print(&format!("{}\n", report(&outcome)))?,
        false => {
            print(&cli_train::progress(&outcome)?)?;
            if outcome.end == End::Finished && outcome.held_out.is_empty() {
                tracing::warn!("there were no test pictures: give --test");
            }
        }
    }
    status::or_unhealthy(&outcome.health)
}

/// The recipe on the model of the weights.
fn config(args: &Args) -> Result<RunConfig> {
    let mut value = match &args.config {
        Some(path) => {
            config::merged(path).with_context(|| format!("configuration {}", path.display()))?
        }
        None => serde_json::from_str(RECIPE).context("the recipe that is built in")?,
    };
    if let Some(path) = &args.checkpoint {
        let hints = Hints {
            heads: args.heads,
            ..Hints::default()
        };
        let weights = convert::read(path, None, &hints)?;
        if args.config.is_none() && weights.config.model.vit().is_none() {
            return Err(bad_input!(
                "the weights in {} are a ResNet's, and the recipe that is built in is DeiT's for \
                 ViTs; give a recipe (--config) with `method.name` \"supervised\"",
                path.display()
            ));
        }
        let mut model = learned(&weights.config);
        if !weights.found.has_config {
            // Inferred as f32: the recipe's, or the default, is meant.
            model["compute_dtype"] = Json::Null;
        }
        // Without a recipe of one's own there is no model but the weights'.
        if let (None, Some(recipe)) = (&args.config, value.as_object_mut()) {
            recipe.remove("model");
        }
        let (mean, std) = (weights.config.augment.mean, weights.config.augment.std);
        let under = json!({ "model": model, "augment": { "mean": mean, "std": std } });
        value = config::layered(under, value);
    }
    let mut overrides = Vec::new();
    if let Some(data) = &args.data {
        overrides.push(Override::new("data.path", data.as_str()));
        overrides.push(Override::new("data.test", Json::Null));
        overrides.push(Override::new("data.labelled", Json::Null));
    }
    if let Some(test) = &args.test {
        overrides.push(Override::new("data.test", test.as_str()));
    }
    overrides.extend(args.seed.map(|seed| Override::new("seed", seed)));
    overrides.extend(args.set.iter().cloned());
    let classes = "method.supervised.classes";
    if args.config.is_none() && args.set.iter().all(|set| set.key != classes) {
        let given = RunConfig::from_written(value.clone(), &overrides)?;
        let found = Pictures::of(&given)?.train.classes().len();
        overrides.push(Override::new(classes, found.max(2)));
    }
    let config = RunConfig::from_written(value, &overrides)?;
    match &config.method.supervised {
        Some(_) => Ok(config),
        None => Err(bad_input!(
            "`method.name` is \"{}\"; fine-tuning needs \"supervised\", as in \
             configs/finetune; pre-training is `xla-moco train`",
            config::word(&config.method.name)
        )),
    }
}

/// A model's section with everything trained.
fn learned(config: &RunConfig) -> Json {
    let mut model = config.to_value()["model"].take();
    for (key, fixed) in [("patch_projection", "frozen"), ("position", "sin_cos")] {
        if model[key] == fixed {
            model[key] = "learned".into();
        }
    }
    model
}

fn default_out(args: &Args) -> Result<PathBuf> {
    let mut name = "finetune".to_owned();
    // With other weights it is another run.
    for path in [&args.config, &args.checkpoint].into_iter().flatten() {
        let stem = path.canonicalize().unwrap_or_else(|_| path.clone());
        let stem = stem
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        name += "-";
        name += &stem.context("give --out: there is no name to make one of")?;
    }
    if args.checkpoint.is_none() {
        name += "-from-scratch";
    }
    Ok(PathBuf::from("runs").join(name))
}

/// The result with what one must know to compare it with another.
fn report(outcome: &Outcome) -> Json {
    let curve: Vec<Json> = outcome
        .held_out
        .iter()
        .map(|(step, top1)| json!({ "step": step, "top1": top1 }))
        .collect();
    json!({
        "top1": outcome.held_out.last().map(|(_, top1)| top1),
        "curve": curve,
        "step": outcome.step,
        "total_steps": outcome.total_steps,
        "run": outcome.run.root(),
        "health": outcome.health.to_json(),
    })
}

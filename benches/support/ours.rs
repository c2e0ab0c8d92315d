//! Our own train step, as `train` builds it.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use xla_moco::config::{Augment, Override, RunConfig};
use xla_moco::data::augment::draw;
use xla_moco::graph::DType;
use xla_moco::graph::block::Lowering;
use xla_moco::programs::Program;
use xla_moco::programs::train_step::{TrainStep, TrainingSet, Views, build};
use xla_moco::rng::{Purpose, Stream};

use super::exported::Config;
use super::{Input, Step, Values};

/// The configuration of ours that is the exported step's.
pub fn config(of: &Config) -> Result<RunConfig> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/configs/cifar10/moco_v3_vit_micro.json"
    );
    let dtype = match of.compute.as_str() {
        "float32" => "f32",
        "bfloat16" => "bf16",
        other => other,
    };
    let head = |layers: usize| json!({"layers": layers, "hidden": of.hidden, "out": of.out});
    let overrides = [
        Override::new("batch", of.batch),
        Override::new("model.blocks", of.blocks),
        Override::new("model.dim", of.dim),
        Override::new("model.heads", of.heads),
        Override::new("model.mlp_ratio", of.mlp_ratio),
        Override::new("model.patch", of.patch),
        Override::new("model.image_size", of.image),
        Override::new("model.compute_dtype", dtype),
        Override::new("method.temperature", of.temperature),
        Override::new("method.projector", head(3)),
        Override::new("method.predictor", head(2)),
        Override::new("optimizer.beta1", of.beta1),
        Override::new("optimizer.beta2", of.beta2),
        Override::new("optimizer.eps", of.adam_eps),
        Override::new("optimizer.weight_decay", of.weight_decay),
    ];
    let mut config = RunConfig::load(Path::new(path), &overrides)?;
    config.augment = Augment::default();
    Ok(config)
}

/// Labelled pictures that the monitor's queue is sized for: CIFAR-10's.
const TRAINING_SET: TrainingSet = TrainingSet {
    images: 50_000,
    classes: 10,
};

/// What our step does besides JAX's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    Nothing,
    /// All of the paper's augmentation, from crops.
    Augmentation,
    /// And the kNN monitor with its queue.
    Monitor,
}

/// Our step on an exported step's model and batch.
pub fn step(of: &Config, extras: Extras) -> Result<Step> {
    let config = config(of)?;
    let queue = config.monitor.queue_size(TRAINING_SET.images, config.batch);
    as_step(&build(&TrainStep {
        config: &config,
        views: match extras {
            Extras::Nothing => Views::Normalised,
            Extras::Augmentation | Extras::Monitor => Views::Augmented,
        },
        queue: if extras == Extras::Monitor { queue } else { 0 },
        classes: TRAINING_SET.classes,
        lowering: Lowering::Unrolled,
    })?)
}

/// `values` and one for each input of `step` that JAX's step has not: crops of
/// noise, drawn augmentation, labels, an empty queue.
pub fn add_values(of: &Config, step: &Step, classify: bool, values: &mut Values) -> Result<()> {
    let config = config(of)?;
    let mut noise = Stream::new(0, Purpose::Test, (0, 0));
    for input in &step.inputs {
        let elements: usize = input.dims.iter().product();
        let bytes: Vec<u8> = match input.name.as_str() {
            "view1" | "view2" if input.dtype == DType::U8 => {
                (0..elements).map(|_| noise.bits() as u8).collect()
            }
            "augment1" => rows(&config, 0),
            "augment2" => rows(&config, 1),
            "labels" => bytes_of(0..elements, |i| (i % TRAINING_SET.classes) as u32),
            "ids" => bytes_of(0..elements, |i| i as u32),
            "classify" => vec![u8::from(classify)],
            name if name.starts_with("knn_queue.") => vec![0; elements * input.dtype.bytes()],
            _ => continue,
        };
        values.insert(input.name.clone(), bytes);
    }
    Ok(())
}

fn rows(config: &RunConfig, view: usize) -> Vec<u8> {
    let size = (64, 64);
    let row = |sample| draw(&config.augment, config.seed, 0, sample, view, size).1;
    (0..config.batch as u32)
        .flat_map(row)
        .flat_map(f32::to_le_bytes)
        .collect()
}

fn bytes_of(range: Range<usize>, value: impl Fn(usize) -> u32) -> Vec<u8> {
    range.flat_map(|i| value(i).to_le_bytes()).collect()
}

fn as_step(program: &Program) -> Result<Step> {
    let inputs = program.graph.inputs.iter().map(|input| Input {
        name: input.name.clone(),
        dtype: input.value.dtype(),
        dims: input.value.dims().to_vec(),
    });
    Ok(Step {
        text: program.text(),
        inputs: inputs.collect(),
        state: program.state,
        loss: program
            .metrics
            .iter()
            .position(|name| name == "loss")
            .context("the train step has no metric named loss")?,
    })
}

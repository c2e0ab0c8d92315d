//! Our own train step, as `train` builds it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use xla_moco::config::{Override, RunConfig};
use xla_moco::graph::block::Lowering;
use xla_moco::programs::Program;
use xla_moco::programs::train_step::{TrainStep, Views, build};

use super::exported::Config;
use super::{Input, Step};

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
    RunConfig::load(Path::new(path), &overrides)
}

/// Our step on finished views, without monitor: what JAX's does.
pub fn step(of: &Config) -> Result<Step> {
    let config = config(of)?;
    as_step(&build(&TrainStep {
        config: &config,
        views: Views::Normalised,
        queue: 0,
        classes: 0,
        lowering: Lowering::Unrolled,
    })?)
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

//! Reads what tools/bench_jax.py writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use safetensors::SafeTensors;
use serde::Deserialize;
use xla_moco::graph::DType;

use super::{Input, Step, Values};

/// The model and batch of an exported step, in the tool's names.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub blocks: usize,
    pub dim: usize,
    pub heads: usize,
    pub patch: usize,
    pub image: usize,
    pub mlp_ratio: usize,
    pub hidden: usize,
    pub out: usize,
    pub temperature: f64,
    pub compute: String,
    pub beta1: f64,
    pub beta2: f64,
    pub adam_eps: f64,
    pub weight_decay: f64,
    pub batch: usize,
}

/// A folder that the tool wrote.
pub struct Exported {
    pub step: Step,
    pub config: Config,
    /// A value for each input, by our names, which the step's inputs have too.
    pub values: Values,
}

#[derive(Deserialize)]
struct Signature {
    inputs: Vec<Spec>,
    outputs: Vec<Spec>,
    config: Config,
}

#[derive(Deserialize)]
struct Spec {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

impl Exported {
    pub fn read(folder: &Path) -> Result<Exported> {
        let context = |name: &str| format!("cannot read {}", folder.join(name).display());
        let text =
            fs::read_to_string(folder.join("step.mlir")).with_context(|| context("step.mlir"))?;
        let signature =
            fs::read(folder.join("signature.json")).with_context(|| context("signature.json"))?;
        let signature: Signature =
            serde_json::from_slice(&signature).with_context(|| context("signature.json"))?;
        let state = signature.outputs.len().saturating_sub(1);
        for (output, input) in signature.outputs.iter().zip(&signature.inputs).take(state) {
            ensure!(
                output.name == input.name,
                "result {} stands where the state {} should",
                output.name,
                input.name
            );
        }
        Ok(Exported {
            step: Step {
                text,
                inputs: signature.inputs.iter().map(input).collect::<Result<_>>()?,
                state,
                loss: 0,
            },
            config: signature.config,
            values: values(&folder.join("inputs.safetensors"))?,
        })
    }
}

fn input(spec: &Spec) -> Result<Input> {
    let dtype = DType::ALL
        .into_iter()
        .find(|dtype| dtype.mlir() == spec.dtype)
        .ok_or_else(|| anyhow!("{} has the unknown type {}", spec.name, spec.dtype))?;
    Ok(Input {
        name: our_name(&spec.name),
        dtype,
        dims: spec.shape.clone(),
    })
}

fn values(path: &Path) -> Result<Values> {
    let context = || format!("cannot read {}", path.display());
    let bytes = fs::read(path).with_context(context)?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(context)?;
    Ok(tensors
        .iter()
        .map(|(name, tensor)| (our_name(name), tensor.data().to_vec()))
        .collect())
}

/// The tool groups the state by what the step does to it; ours is one list
/// under the public names.
fn our_name(name: &str) -> String {
    let (group, rest) = name.split_once('.').unwrap_or((name, ""));
    match group {
        "trained" | "fixed" | "momentum" | "buffers" => rest.to_owned(),
        "adam_m" => format!("optimizer.exp_avg.{rest}"),
        "adam_v" => format!("optimizer.exp_avg_sq.{rest}"),
        "x1" => "view1".to_owned(),
        "x2" => "view2".to_owned(),
        "m" => "momentum".to_owned(),
        _ => name.to_owned(),
    }
}

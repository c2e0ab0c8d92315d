//! What lies at a path: a file of weights, a run, a checkpoint, or a folder
//! with weights and a description.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use super::infer::Hints;
use super::record::{RECORD_FILE, Record};
use super::source::Source;
use crate::bad_input;
use crate::checkpoint::{self, RunDir};
use crate::config::{Override, RunConfig};
use crate::hash::sha256_of_file;

/// A description is a page of text; a larger file is none.
const MAX_JSON: u64 = 1 << 20;

/// The weights of a folder, the first that is there.
const WEIGHTS: [&str; 3] = ["model.safetensors", "pytorch_model.bin", "model.onnx"];

/// Weights, and what is known of them.
pub struct Contents {
    pub source: Source,
    pub sha256: String,
    /// Of a run, or of what `convert` wrote.
    pub config: Option<RunConfig>,
    pub hints: Hints,
    /// What says so.
    pub told_by: &'static str,
}

/// # Errors
/// [`bad_input!`] for a path without weights, or with damaged ones.
pub fn open(path: &Path) -> Result<Contents> {
    if !path.is_dir() {
        return file(path);
    }
    let is_checkpoint = path.join("manifest.json").exists() || path.join("checkpoints").is_dir();
    if is_checkpoint {
        return of_run(path);
    }
    let weights = WEIGHTS.iter().map(|name| path.join(name));
    let weights = weights.into_iter().find(|path| path.is_file());
    let Some(weights) = weights else {
        return Err(bad_input!(
            "{} holds no weights: expected a run (checkpoints/), a checkpoint (manifest.json), or \
             one of {}",
            path.display(),
            WEIGHTS.join(", ")
        ));
    };
    let mut contents = file(&weights)?;
    if contents.config.is_some() {
        return Ok(contents);
    }
    if path.join(RECORD_FILE).is_file() {
        let record = Record::read(path)?;
        contents.config = Some(record.config);
        contents.told_by = RECORD_FILE;
        return Ok(contents);
    }
    let described = path.join("config.json");
    if described.is_file() {
        contents.hints =
            hints(&json(&described)?).with_context(|| format!("in {}", described.display()))?;
        contents.told_by = "config.json";
    }
    let processor = path.join("preprocessor_config.json");
    if processor.is_file() {
        let json = json(&processor)?;
        contents.hints.mean = contents.hints.mean.or(three(&json, "/image_mean"));
        contents.hints.std = contents.hints.std.or(three(&json, "/image_std"));
    }
    Ok(contents)
}

fn file(path: &Path) -> Result<Contents> {
    let source = Source::open(path)?;
    let config = match source.note(super::record::NOTE) {
        Some(note) => Some(Record::of_note(note)?),
        None => None,
    };
    Ok(Contents {
        sha256: sha256_of_file(path).with_context(|| format!("cannot read {}", path.display()))?,
        source,
        config,
        hints: Hints::default(),
        told_by: "its own metadata",
    })
}

fn of_run(path: &Path) -> Result<Contents> {
    let loaded = checkpoint::open(path)?;
    Ok(Contents {
        config: Some(config_of(&loaded.path, &[])?),
        sha256: loaded.manifest.state_sha256,
        source: Source::of_snapshot(loaded.snapshot),
        hints: Hints::default(),
        told_by: "the run's config.json",
    })
}

/// The configuration of the run that a checkpoint lies in, `RUN/checkpoints/`.
///
/// # Errors
/// [`bad_input!`] for a checkpoint outside of a run, and for a configuration
/// that is not valid.
pub fn config_of(checkpoint: &Path, set: &[Override]) -> Result<RunConfig> {
    let real = checkpoint
        .canonicalize()
        .with_context(|| format!("cannot open {}", checkpoint.display()))?;
    let root = real.ancestors().nth(2).unwrap_or(&real);
    let written = RunDir::open(root)?.read_config()?.ok_or_else(|| {
        bad_input!(
            "the checkpoint {} lies in no run: expected the run's config.json in {}",
            checkpoint.display(),
            root.display()
        )
    })?;
    RunConfig::from_written(written, set)
        .with_context(|| format!("configuration {}", root.join("config.json").display()))
}

/// A file of JSON, of bounded size.
pub fn json(path: &Path) -> Result<Json> {
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > MAX_JSON {
        return Err(bad_input!(
            "{} has {} bytes; a description has at most {MAX_JSON}",
            path.display(),
            bytes.len()
        ));
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| bad_input!("{} is no JSON: {error}", path.display()))
}

/// What timm's or Hugging Face's config.json says.
fn hints(config: &Json) -> Result<Hints> {
    let number = |pointer: &str| {
        let found = config.pointer(pointer).and_then(Json::as_u64);
        found.and_then(|number| usize::try_from(number).ok())
    };
    if let Some(eps) = config.pointer("/layer_norm_eps").and_then(Json::as_f64)
        && (eps - 1e-6).abs() > 1e-9
    {
        return Err(bad_input!(
            "its layer norms have eps {eps:e}; the models here have 1e-6, so features would differ"
        ));
    }
    let quiet = |pointer: &str, expected: Json| match config.pointer(pointer) {
        Some(found) if *found != expected => Err(bad_input!(
            "its {} is {found}; the models here have {expected}",
            pointer.trim_start_matches('/')
        )),
        _ => Ok(()),
    };
    quiet("/hidden_act", Json::from("gelu"))?;
    quiet("/qkv_bias", Json::from(true))?;
    let size = number("/model_args/img_size").or(number("/image_size"));
    Ok(Hints {
        heads: number("/model_args/num_heads")
            .or(number("/num_attention_heads"))
            .or(config["architecture"].as_str().and_then(heads_in_timm)),
        image_size: size.or(number("/pretrained_cfg/input_size/1")),
        mean: three(config, "/pretrained_cfg/mean"),
        std: three(config, "/pretrained_cfg/std"),
    })
}

fn three(json: &Json, pointer: &str) -> Option<[f64; 3]> {
    serde_json::from_value(json.pointer(pointer)?.clone()).ok()
}

/// The heads of timm's models of these names.
fn heads_in_timm(architecture: &str) -> Option<usize> {
    let mut words = architecture.split('_');
    match (words.next()?, words.next()?) {
        ("vit" | "deit" | "deit3", "tiny") => Some(3),
        ("vit" | "deit" | "deit3", "small") => Some(6),
        ("vit" | "deit" | "deit3", "base") => Some(12),
        ("vit" | "deit" | "deit3", "large" | "huge") => Some(16),
        _ => None,
    }
}

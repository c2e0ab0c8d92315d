//! `convert.json`: what was converted, and all that the weights do not say.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::folder;
use super::infer;
use super::weights::Weights;
use crate::bad_input;
use crate::checkpoint::atomic;
use crate::config::RunConfig;

pub const RECORD_FILE: &str = "convert.json";

/// The key of a safetensors file's metadata under which the same stands, so
/// that the file alone is enough.
pub const NOTE: &str = "xla-moco";

/// Of every layer norm here.
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// The record of a conversion, read back.
pub struct Record {
    pub config: RunConfig,
}

impl Record {
    /// Reads a folder's record.
    ///
    /// # Errors
    /// [`bad_input!`] for a file that is no record.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD_FILE);
        let json = folder::json(&path)?;
        let config = of_json(&json).with_context(|| format!("in {}", path.display()))?;
        Ok(Self { config })
    }

    /// The configuration that a file's metadata holds.
    ///
    /// # Errors
    /// [`bad_input!`] for metadata that is not ours.
    pub fn of_note(note: &str) -> Result<RunConfig> {
        let json = serde_json::from_str(note)
            .map_err(|error| bad_input!("its metadata {NOTE} is no JSON: {error}"))?;
        of_json(&json).with_context(|| format!("in its metadata {NOTE}"))
    }
}

fn of_json(json: &Json) -> Result<RunConfig> {
    let part = |key: &str| {
        json.get(key)
            .ok_or_else(|| bad_input!("it has no {key}, which convert writes"))
    };
    let normalisation = part("normalisation")?;
    let about = json!({"title": "Converted weights", "source": "xla-moco convert"});
    infer::config(part("model")?, part("method")?, normalisation, &about)
}

/// What a file's metadata says.
pub fn note(weights: &Weights) -> Json {
    let config = &weights.config;
    json!({
        "model": config.model,
        // Only heads that are in the weights are anything to go by.
        "method": json!({}),
        "normalisation": {"mean": config.augment.mean, "std": config.augment.std},
        "layer_norm_eps": LAYER_NORM_EPS,
    })
}

/// Writes a folder's record.
pub fn write(folder: &Path, weights: &Weights, to: &str) -> Result<()> {
    let found = &weights.found;
    let mut json = note(weights);
    json["from"] = json!({
        "path": found.path,
        "sha256": found.sha256,
        "layout": found.layout.name(),
        "heads": found.heads_by,
        "left_aside": found.aside,
    });
    json["to"] = Json::from(to);
    json["tensors"] = Json::from(weights.backbone.len());
    json["features"] = Json::from(weights.config.model.features_are());
    atomic::write_file(&folder.join(RECORD_FILE), format!("{json:#}\n").as_bytes())
}

//! Weights that a run starts from, in place of random ones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use crate::bad_input;
use crate::checkpoint::{HostTensor, RunDir};
use crate::config::{Position, RunConfig};
use crate::convert::{self, Hints, Weights, resample};
use crate::methods::starts_as;
use crate::models;
use crate::nn::{Role, materialise};
use crate::programs::HostArray;
use crate::report::read_events;

/// The event that says from which weights a run began.
pub const KIND: &str = "continue_from";

/// Weights that fit the configuration's backbone.
pub struct Start {
    weights: Weights,
    path: String,
}

impl Start {
    /// Reads a file, a run or a folder, as `convert` does.
    ///
    /// # Errors
    /// [`bad_input!`] for weights of another backbone, or of another number of
    /// heads.
    pub fn read(path: &Path, config: &RunConfig) -> Result<Self> {
        let model = &config.model;
        let hints = Hints {
            heads: model.vit().map(|vit| vit.heads),
            ..Hints::default()
        };
        let context = || format!("--continue-from {}", path.display());
        let mut weights = convert::read(path, None, &hints).with_context(context)?;
        fit_positions(&mut weights, config).with_context(context)?;
        check(&weights, config).with_context(context)?;
        let (theirs, ours) = (&weights.config.augment, &config.augment);
        if (theirs.mean, theirs.std) != (ours.mean, ours.std) {
            tracing::warn!(
                "the weights in {} are of pictures with mean {:?} and std {:?}, this run's are {:?} \
                 and {:?}: set augment.mean and augment.std",
                path.display(),
                theirs.mean,
                theirs.std,
                ours.mean,
                ours.std
            );
        }
        Ok(Self {
            weights,
            path: path.display().to_string(),
        })
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> &str {
        &self.weights.found.sha256
    }

    /// Puts the weights in the place of a fresh state's: the backbone into the
    /// base encoder, each head where the file has the whole of it. The momentum
    /// encoder is the file's own, or starts as a copy. Says what was done.
    ///
    /// # Errors
    /// If the state is not one of the configuration that was read for.
    pub fn put(&self, config: &RunConfig, state: &mut [HostArray]) -> Result<(String, Json)> {
        let mut given: BTreeMap<String, &HostTensor> = BTreeMap::new();
        for tensor in &self.weights.backbone {
            given.insert(format!("base_encoder.{}", tensor.name), tensor);
        }
        for tensor in &self.weights.beside {
            given.insert(tensor.name.clone(), tensor);
        }
        let projector = format!("base_encoder.{}.", models::projector_name(&config.model));
        let mut heads = Vec::new();
        for (what, prefix) in [
            ("projector", projector.as_str()),
            ("predictor", "predictor."),
            ("momentum encoder", "momentum_encoder."),
        ] {
            let own = state.iter().filter(|array| array.name.starts_with(prefix));
            let own: Vec<bool> = own.map(|array| fits(&given, array)).collect();
            let whole = own.iter().all(|fits| *fits);
            if !whole {
                given.retain(|name, _| !name.starts_with(prefix));
            }
            let origin = match (own.is_empty(), whole, what) {
                (true, _, _) => continue,
                (_, true, _) => "from the file",
                (_, false, "momentum encoder") => "a copy of the base encoder",
                (_, false, _) => "fresh",
            };
            heads.push((what, origin));
        }
        let mut copies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for array in state.iter_mut() {
            if let Some(tensor) = given.get(&array.name) {
                array.data.clone_from(&tensor.data);
            }
        }
        for array in state.iter() {
            let leader = starts_as(&array.name);
            if leader != array.name && !given.contains_key(&array.name) {
                let found = state.iter().find(|other| other.name == leader);
                let found = found.with_context(|| format!("{} follows nothing", array.name))?;
                copies.insert(array.name.clone(), found.data.clone());
            }
        }
        for array in state.iter_mut() {
            if let Some(data) = copies.remove(&array.name) {
                array.data = data;
            }
        }
        let told: Vec<String> = heads
            .iter()
            .map(|(what, origin)| format!("{what} {origin}"))
            .collect();
        let tensors = self.weights.backbone.len();
        let message = format!(
            "starts from {}: {tensors} of {tensors} tensors of the backbone; {}",
            self.path,
            told.join(", ")
        );
        let evidence = json!({
            "path": self.path,
            "sha256": self.sha256(),
            "layout": self.weights.found.layout.name(),
            "tensors": tensors,
        });
        Ok((message, evidence))
    }
}

/// Refuses to go on with a run that began from other weights than those that are
/// named now. Where a host's records do not say, as on a new machine, it takes
/// their word.
///
/// # Errors
/// [`bad_input!`] with both; for weights that cannot be read.
pub fn same_as_begun(path: &Path, config: &RunConfig, run: &RunDir) -> Result<()> {
    let events = read_events(run)?;
    let told = |kind: &str| events.iter().rfind(|event| event.kind == kind);
    let Some(begun) = told(KIND) else {
        return match told("started") {
            Some(_) => Err(bad_input!(
                "{} began without weights, and --continue-from names {}: leave it away to go on, \
                 or begin another run with --out",
                run.root().display(),
                path.display()
            )),
            None => Ok(()),
        };
    };
    let word = |key: &str| {
        begun
            .evidence
            .get(key)
            .and_then(Json::as_str)
            .unwrap_or("unknown")
    };
    let (now, before) = (Start::read(path, config)?, word("sha256"));
    if now.sha256() != before {
        return Err(bad_input!(
            "{} began from {} (SHA-256 {before:.12}), and --continue-from names {} (SHA-256 \
             {:.12}): give those weights again, or begin another run with --out",
            run.root().display(),
            word("path"),
            path.display(),
            now.sha256()
        ));
    }
    Ok(())
}

fn fits(given: &BTreeMap<String, &HostTensor>, array: &HostArray) -> bool {
    let found = given.get(&array.name);
    found.is_some_and(|tensor| tensor.shape == array.shape.dims())
}

/// Positions of pictures of another size are interpolated where they are, or will
/// be, learned; those of sines that stay sines are made anew.
fn fit_positions(weights: &mut Weights, config: &RunConfig) -> Result<()> {
    let specs = models::specs(&config.model);
    let Some(spec) = specs.iter().find(|spec| spec.name == POSITIONS) else {
        return Ok(());
    };
    let found = weights.backbone.iter_mut().find(|t| t.name == POSITIONS);
    let Some(found) = found.filter(|tensor| tensor.shape != spec.dims) else {
        return Ok(());
    };
    let tokens = spec.dims[1];
    let theirs = weights.config.model.vit().map(|vit| vit.position);
    let made_anew = spec.role != Role::Trained && theirs == Some(Position::SinCos);
    *found = match made_anew {
        false => resample(found, tokens),
        true => Some(HostTensor {
            name: spec.name.clone(),
            dtype: found.dtype,
            shape: spec.dims.clone(),
            data: HostArray::f32(&spec.name, &spec.dims, &materialise(spec, config.seed)).data,
        }),
    }
    .filter(|fitted| fitted.shape == spec.dims)
    .with_context(|| {
        bad_input!(
            "its position embedding {:?} cannot be interpolated to {:?}",
            found.shape,
            spec.dims
        )
    })?;
    tracing::info!(
        "the positions of {tokens} tokens are {}",
        match made_anew {
            false => "interpolated from those of another picture size",
            true => "made for this picture size",
        }
    );
    Ok(())
}

/// The backbone's position embedding.
const POSITIONS: &str = "pos_embed";

/// The weights are those of the configuration's backbone.
fn check(weights: &Weights, config: &RunConfig) -> Result<()> {
    let heads = config.model.vit().map(|vit| vit.heads);
    if weights.heads() != heads {
        return Err(bad_input!(
            "its model has {:?} attention heads, the configuration's {heads:?}: set model.heads",
            weights.heads()
        ));
    }
    let specs = models::specs(&config.model);
    for spec in &specs {
        let found = weights
            .backbone
            .iter()
            .find(|tensor| tensor.name == spec.name);
        let shape = found.map(|tensor| &tensor.shape);
        if shape != Some(&spec.dims) {
            return Err(bad_input!(
                "the configuration's backbone has {} {:?}, the weights have {}: they are of \
                 another model; set the model section to theirs",
                spec.name,
                spec.dims,
                shape.map_or("none".to_owned(), |shape| format!("{shape:?}"))
            ));
        }
    }
    let known = |tensor: &&HostTensor| specs.iter().any(|spec| spec.name == tensor.name);
    match weights.backbone.iter().find(|tensor| !known(tensor)) {
        None => Ok(()),
        Some(tensor) => Err(bad_input!(
            "the weights have {}, which the configuration's backbone has not: they are of another \
             model; set the model section to theirs",
            tensor.name
        )),
    }
}

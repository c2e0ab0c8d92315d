//! What the methods have in common: encoders applied to both views, the
//! momentum encoder, and a measure of collapse.

use super::{Chunks, Pictures, Step};
use crate::config::{CropPass, Crops, Head, RunConfig};
use crate::graph::{Builder, GraphError, Result, Value};
use crate::models::{self, Trunk, compute_dtype, head, projector_name};
use crate::nn::{Mode, Role, Site, Spec, Variables, l2_normalize, relative_std, under};

pub(super) const BASE: &str = "base_encoder";
const MOMENTUM: &str = "momentum_encoder";
const PREDICTOR: &str = "predictor";

/// Which encoder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    Base,
    /// Has no gradient.
    Momentum,
}

/// Encoders and predictor as far as the method has them, under the public
/// code's names.
pub fn specs(config: &RunConfig) -> Vec<Spec> {
    let method = &config.method;
    let encoder = encoder_specs(config);
    let mut specs: Vec<Spec> = under(BASE, encoder.clone()).collect();
    if method.name.has_momentum_encoder() {
        specs.extend(under(MOMENTUM, encoder).map(not_trained));
    }
    let predictor = head::specs(&method.predictor, method.projector.out);
    specs.extend(under(PREDICTOR, predictor));
    specs
}

fn encoder_specs(config: &RunConfig) -> Vec<Spec> {
    let model = &config.model;
    let mut specs = models::specs(model);
    let projector = head::specs(&config.method.projector, model.features());
    specs.extend(under(projector_name(model), projector));
    specs
}

fn not_trained(spec: Spec) -> Spec {
    match spec.role {
        Role::Trained => spec.with_role(Role::Frozen),
        _ => spec,
    }
}

/// The base encoder's name of what a variable of the momentum encoder follows.
pub fn followed_by(name: &str) -> Option<String> {
    let rest = name.strip_prefix(MOMENTUM)?.strip_prefix('.')?;
    Some(format!("{BASE}.{rest}"))
}

/// f_k <- m f_k + (1 - m) f_q: of what is trained, not of BN buffers.
fn update_momentum_encoder(step: &Step) -> Result<()> {
    let (b, variables, m) = (step.b, step.variables, step.momentum);
    let _scope = b.scope("momentum_update");
    let rest = b.sub(b.full_like(m, 1.0)?, m)?;
    for spec in encoder_specs(step.config) {
        if spec.role == Role::Trained {
            let name = format!("{MOMENTUM}.{}", spec.name);
            let slow = variables.get(&name)?;
            let fast = variables.get(&format!("{BASE}.{}", spec.name))?;
            let new = b.add(b.mul(slow, m)?, b.mul(fast, rest)?)?;
            // The keys have no gradient, and neither has what makes them.
            variables.set(&name, b.stop_gradient(new)?);
        }
    }
    Ok(())
}

/// Both views, normalised [B, 3, S, S], as one batch [2 B, 3, S, S], picture by
/// picture: weights are read once, and the batch stays split over devices as it
/// was.
pub fn both_views(b: &Builder, views: [Value; 2]) -> Result<Value> {
    let _scope = b.scope("views");
    let [batch, channels, height, width] = *views[0].dims() else {
        let shape = views[0].shape;
        let reason = format!("a view is {shape}, not [B, 3, S, S]");
        return Err(GraphError::Invalid(reason));
    };
    let one = |view: Value| b.reshape(view, &[batch, 1, channels, height, width]);
    let both = b.concatenate(&[one(views[0])?, one(views[1])?], 1)?;
    b.reshape(both, &[2 * batch, channels, height, width])
}

/// Features [B, 2, dim] and projections [B, 2, out] of both views. Heads see
/// the whole batch at once, also where the backbone sees it in chunks.
pub fn encode(step: &Step, encoder: Encoder) -> Result<[Value; 2]> {
    let (name, differentiable) = match encoder {
        Encoder::Base => (BASE, true),
        Encoder::Momentum => (MOMENTUM, false),
    };
    let trunk = Trunk {
        lowering: step.lowering,
        differentiable,
        views: match step.config.method.bn_crops {
            Crops::Apart => 2,
            Crops::Together => 1,
        },
        drop_path: false,
    };
    let features = match step.pictures {
        Pictures::Whole(pictures) => backbone(step, &site(step).at(name), trunk, pictures)?,
        Pictures::InChunks(chunks) => in_chunks(step, name, trunk, chunks)?,
    };
    let model = &step.config.model;
    let site = site(step).at(name);
    let _scope = site.enter();
    let projector = &step.config.method.projector;
    let projections = apply_head(step, &site.at(projector_name(model)), projector, features)?;
    Ok([features, projections])
}

/// Pictures [2 B, 3, S, S] to features [B, 2, dim].
fn backbone(step: &Step, site: &Site, trunk: Trunk, pictures: Value) -> Result<Value> {
    let (b, model) = (site.b, &step.config.model);
    let (batch, width) = (pictures.dim(0) / 2, model.features());
    if step.config.crop_pass == CropPass::Stacked {
        let features = models::backbone(site, model, trunk, pictures)?;
        let _scope = site.enter();
        return b.reshape(features, &[batch, 2, width]);
    }
    let pairs = b.reshape(pictures, &[&[batch, 2], &pictures.dims()[1..]].concat())?;
    let trunk = Trunk { views: 1, ..trunk };
    let mut both = Vec::new();
    for view in 0..2 {
        let one = b.slice_axis(pairs, 1, view, view + 1)?;
        let one = b.reshape(one, &[&[batch], &pictures.dims()[1..]].concat())?;
        let features = models::backbone(site, model, trunk, one)?;
        both.push(b.reshape(features, &[batch, 1, width])?);
    }
    b.concatenate(&both, 1)
}

/// As [`backbone`], a chunk at a time.
fn in_chunks(step: &Step, name: &str, trunk: Trunk, chunks: &Chunks) -> Result<Value> {
    let names: Vec<String> = under(name, models::specs(&step.config.model))
        .map(|spec| spec.name)
        .collect();
    let shared: Result<Vec<Value>> = names.iter().map(|n| step.variables.get(n)).collect();
    let (number, sources) = (chunks.number, &chunks.sources);
    let features = step
        .b
        .map_chunks(number, sources, &shared?, |b, sources, shared| {
            let pictures = (chunks.pictures)(b, sources)?;
            let own = names.iter().cloned().zip(shared.iter().copied());
            let variables = Variables::new(own);
            let step = Step {
                b,
                variables: &variables,
                ..*step
            };
            Ok(vec![backbone(
                &step,
                &site(&step).at(name),
                trunk,
                pictures,
            )?])
        })?;
    Ok(features[0])
}

/// What a method with a momentum encoder makes of both views, each [B, 2, ..].
pub struct Pass {
    /// The base encoder's features and projections.
    pub features: Value,
    pub z: Value,
    /// Predictions.
    pub q: Value,
    /// The momentum encoder's projections, after its update. No gradient.
    pub k: Value,
}

/// q of both views, the momentum encoder's update, k of both views: the order
/// of the public code.
pub fn pass(step: &Step) -> Result<Pass> {
    let [features, z] = encode(step, Encoder::Base)?;
    let q = predict(step, z)?;
    update_momentum_encoder(step)?;
    let [_, k] = encode(step, Encoder::Momentum)?;
    let k = step.b.stop_gradient(k)?;
    Ok(Pass { features, z, q, k })
}

/// Predictions of projections [B, 2, out]; these themselves where there is no
/// predictor.
pub fn predict(step: &Step, projections: Value) -> Result<Value> {
    let predictor = &step.config.method.predictor;
    apply_head(step, &site(step).at(PREDICTOR), predictor, projections)
}

/// One view's part [B, D] of [B, 2, D].
pub fn view(b: &Builder, both: Value, i: usize) -> Result<Value> {
    let one = b.slice_axis(both, 1, i, i + 1)?;
    b.reshape(one, &[both.dim(0), both.dim(2)])
}

fn site<'a>(step: &Step<'a>) -> Site<'a> {
    let compute = compute_dtype(step.config.model.compute_dtype);
    Site::new(step.b, step.variables, compute, Mode::Train)
}

/// A head on vectors [B, 2, D]. BN has statistics of each view, as if one had
/// passed after the other, or of both together, as `method.bn_crops` says.
fn apply_head(step: &Step, site: &Site, config: &Head, x: Value) -> Result<Value> {
    let b = step.b;
    let batch = x.dim(0);
    match step.config.method.bn_crops {
        Crops::Apart => head::head(site, config, x),
        Crops::Together => {
            let rows = b.reshape(x, &[2 * batch, x.dim(2)])?;
            let y = head::head(site, config, rows)?;
            b.reshape(y, &[batch, 2, y.dim(1)])
        }
    }
}

/// mean_i cos(x_i, y_i) of rows [N, D].
pub fn mean_cosine(b: &Builder, x: Value, y: Value) -> Result<Value> {
    let y = l2_normalize(b, y)?;
    let cosines = b.sum(b.mul(l2_normalize(b, x)?, y)?, &[1])?;
    b.mean(cosines, &[0])
}

/// How far the projections `z` [N, D] of the first view spread.
pub fn output_std(b: &Builder, z: Value) -> Result<(&'static str, Value)> {
    let _scope = b.scope("output_std");
    Ok(("output_std", relative_std(b, b.stop_gradient(z)?)?))
}

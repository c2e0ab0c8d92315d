//! What the methods have in common: encoders applied to both views, the
//! momentum encoder, and a measure of collapse.

use super::Step;
use crate::config::{Crops, Head, RunConfig};
use crate::graph::{Builder, GraphError, Result, Value};
use crate::models::vit::Trunk;
use crate::models::{compute_dtype, head, vit};
use crate::nn::{Mode, Role, Site, Spec, relative_std, under};

const BASE: &str = "base_encoder";
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
    let mut specs = vit::specs(&config.model);
    let projector = head::specs(&config.method.projector, config.model.dim);
    specs.extend(under("head", projector));
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

/// Both views as one batch [2 B, 3, S, S], picture by picture: weights are read
/// once, and the batch stays split over devices as it was.
pub fn pictures(step: &Step) -> Result<Value> {
    let b = step.b;
    let _scope = b.scope("views");
    let [batch, channels, height, width] = *step.views[0].dims() else {
        let shape = step.views[0].shape;
        let reason = format!("a view is {shape}, not [B, 3, S, S]");
        return Err(GraphError::Invalid(reason));
    };
    let one = |view: Value| b.reshape(view, &[batch, 1, channels, height, width]);
    let both = b.concatenate(&[one(step.views[0])?, one(step.views[1])?], 1)?;
    b.reshape(both, &[2 * batch, channels, height, width])
}

/// Features [B, 2, dim] and projections [B, 2, out] of both views of
/// [`pictures`].
pub fn encode(step: &Step, encoder: Encoder, pictures: Value) -> Result<[Value; 2]> {
    let (name, differentiable) = match encoder {
        Encoder::Base => (BASE, true),
        Encoder::Momentum => (MOMENTUM, false),
    };
    let site = site(step).at(name);
    let trunk = Trunk {
        lowering: step.lowering,
        differentiable,
    };
    let model = &step.config.model;
    let features = vit::vit(&site, model, trunk, pictures)?;
    let _scope = site.enter();
    let batch = pictures.dim(0) / 2;
    let features = step.b.reshape(features, &[batch, 2, model.dim])?;
    let projector = &step.config.method.projector;
    let projections = apply_head(step, &site.at("head"), projector, features)?;
    Ok([features, projections])
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
    let pictures = pictures(step)?;
    let [features, z] = encode(step, Encoder::Base, pictures)?;
    let q = predict(step, z)?;
    update_momentum_encoder(step)?;
    let [_, k] = encode(step, Encoder::Momentum, pictures)?;
    let k = step.b.stop_gradient(k)?;
    Ok(Pass { features, z, q, k })
}

/// Predictions of projections [B, 2, out]; these themselves where there is no
/// predictor.
fn predict(step: &Step, projections: Value) -> Result<Value> {
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

/// How far the projections `z` [N, D] of the first view spread.
pub fn output_std(b: &Builder, z: Value) -> Result<(&'static str, Value)> {
    let _scope = b.scope("output_std");
    Ok(("output_std", relative_std(b, b.stop_gradient(z)?)?))
}

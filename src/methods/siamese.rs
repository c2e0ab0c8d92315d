//! What the methods have in common: encoders applied to both views, the
//! momentum encoder, and a measure of collapse.

use super::Step;
use crate::config::{Crops, RunConfig};
use crate::graph::{Builder, GraphError, Result, Value};
use crate::models::vit::Trunk;
use crate::models::{compute_dtype, head, vit};
use crate::nn::{Mode, Role, Site, Spec, l2_normalize, under};

const BASE: &str = "base_encoder";
const MOMENTUM: &str = "momentum_encoder";
const PREDICTOR: &str = "predictor";

/// A value of each view.
pub type Pair = [Value; 2];

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
pub fn update_momentum_encoder(step: &Step) -> Result<()> {
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

/// Features [B, dim] and projections [B, out] of both views.
pub fn encode(step: &Step, encoder: Encoder) -> Result<(Pair, Pair)> {
    let (name, differentiable) = match encoder {
        Encoder::Base => (BASE, true),
        Encoder::Momentum => (MOMENTUM, false),
    };
    let site = site(step).at(name);
    let trunk = Trunk {
        lowering: step.lowering,
        differentiable,
    };
    let both = on_both(step, step.views, |view| {
        let features = vit::vit(&site, &step.config.model, trunk, view)?;
        let _scope = site.enter();
        let projector = &step.config.method.projector;
        let projected = head::head(&site.at("head"), projector, features)?;
        Ok([features, projected])
    })?;
    Ok((both.map(|[features, _]| features), both.map(|[_, z]| z)))
}

/// Predictions of both views' projections; these themselves where there is no
/// predictor.
pub fn predict(step: &Step, projections: Pair) -> Result<Pair> {
    let both = on_both(step, projections, |x| {
        let predictor = &step.config.method.predictor;
        Ok([head::head(&site(step).at(PREDICTOR), predictor, x)?])
    })?;
    Ok(both.map(|[q]| q))
}

fn site<'a>(step: &Step<'a>) -> Site<'a> {
    let compute = compute_dtype(step.config.model.compute_dtype);
    Site::new(step.b, step.variables, compute, Mode::Train)
}

/// Applies `f` to each view after the other, or to both as one batch, as
/// `method.bn_crops` says.
fn on_both<const N: usize>(
    step: &Step,
    views: Pair,
    f: impl Fn(Value) -> Result<[Value; N]>,
) -> Result<[[Value; N]; 2]> {
    let b = step.b;
    match step.config.method.bn_crops {
        Crops::Apart => Ok([f(views[0])?, f(views[1])?]),
        Crops::Together => {
            let found = f(joined(b, views)?)?;
            let mut both = [found; 2];
            for (view, values) in both.iter_mut().enumerate() {
                for value in values {
                    *value = part(b, *value, view)?;
                }
            }
            Ok(both)
        }
    }
}

/// Two values [B, ..] as one [2 B, ..], picture by picture, so that a split
/// batch stays split as it is.
fn joined(b: &Builder, views: Pair) -> Result<Value> {
    let Some((batch, rest)) = views[0].dims().split_first() else {
        return Err(GraphError::Invalid("a view has no batch axis".into()));
    };
    let rows = [&[*batch, 1], rest].concat();
    let rows = [b.reshape(views[0], &rows)?, b.reshape(views[1], &rows)?];
    b.reshape(b.concatenate(&rows, 1)?, &[&[2 * batch], rest].concat())
}

/// One view's part of what [`joined`] made.
fn part(b: &Builder, both: Value, view: usize) -> Result<Value> {
    let (batch, rest) = (both.dim(0) / 2, &both.dims()[1..]);
    let rows = b.reshape(both, &[&[batch, 2], rest].concat())?;
    let rows = b.slice_axis(rows, 1, view, view + 1)?;
    b.reshape(rows, &[&[batch], rest].concat())
}

/// How far the normalised projections `z` [N, D] spread: the standard
/// deviation over the batch of each element, mean over the elements, times
/// sqrt(D). About 1 where they spread over the sphere, 0 where all are one
/// (Chen and He 2021, Sec. 4.1).
pub fn output_std(b: &Builder, z: Value) -> Result<(&'static str, Value)> {
    let _scope = b.scope("output_std");
    let z = l2_normalize(b, b.stop_gradient(z)?)?;
    let centred = b.sub(z, b.mean(z, &[0])?)?;
    let std = b.sqrt(b.mean(b.mul(centred, centred)?, &[0])?)?;
    let mean = b.mean(std, &[0])?;
    Ok(("output_std", b.scale(mean, (z.dim(1) as f64).sqrt())?))
}

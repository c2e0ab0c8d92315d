//! SwAV (Caron et al. 2020) with two crops: predict from one view the other's
//! code, its soft assignment to prototypes.
//!
//! ```text
//! C      <- C / |C|                      each prototype, at the start of a step
//! z1, z2 = f(x1), f(x2)                  encoder and projector, L2-normalised
//! s1, s2 = z1 C^T, z2 C^T
//! c1, c2 = sinkhorn(s1), sinkhorn(s2)    (no gradient; over the whole batch)
//! loss   = (CE(s1 / tau, c2) + CE(s2 / tau, c1)) / 2
//! ```
//!
//! The projector has no BN on a ViT (appendix A, "MLP heads in BYOL and
//! SwAV"). The prototypes are held as they are in the first
//! `freeze_prototypes_steps` updates. State: the prototypes; for small batches
//! the past projections of each view (`swav_queue`, newest first), over which
//! codes are balanced too once the queue is full.

use super::siamese::{self, Encoder, view};
use super::{Forward, Method, Step, moco_v3, sinkhorn};
use crate::config::{RunConfig, Swav};
use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, GraphError, Result, Sharding, Value};
use crate::nn::{Init, Role, Spec, Variables, l2_normalize};

pub(super) const METHOD: Method = Method {
    specs,
    prepare,
    forward,
    chance_loss,
    held_steps,
};

/// The original's name; [K, out].
const PROTOTYPES: &str = "prototypes.weight";
/// [2, rows, out]; rows not yet written are zeros.
const QUEUE: &str = "swav_queue";

fn specs(config: &RunConfig) -> Vec<Spec> {
    let mut specs = siamese::specs(config);
    let out = config.method.projector.out;
    if let Some(swav) = &config.method.swav {
        let dims = [swav.prototypes, out];
        specs.push(Spec::trained(PROTOTYPES, &dims, Init::fan_in(out)));
        if swav.queue > 0 {
            let queue = Spec::trained(QUEUE, &[2, swav.queue, out], Init::Zeros);
            specs.push(queue.with_role(Role::Buffer));
        }
    }
    specs
}

fn held_steps(config: &RunConfig, name: &str) -> u64 {
    match &config.method.swav {
        Some(swav) if name == PROTOTYPES => swav.freeze_prototypes_steps,
        _ => 0,
    }
}

/// ln K: every prototype as likely as any other.
fn chance_loss(config: &RunConfig) -> f64 {
    let prototypes = config
        .method
        .swav
        .as_ref()
        .map_or(1, |swav| swav.prototypes);
    (prototypes as f64).ln()
}

/// Puts the prototypes on the unit sphere.
fn prepare(b: &Builder, variables: &Variables) -> Result<()> {
    let _scope = b.scope("prototypes");
    variables.set(PROTOTYPES, l2_normalize(b, variables.get(PROTOTYPES)?)?);
    Ok(())
}

fn forward(step: &Step) -> Result<Forward> {
    let b = step.b;
    let Some(swav) = &step.config.method.swav else {
        return Err(GraphError::Invalid("swav without its section".into()));
    };
    let [features, projections] = siamese::encode(step, Encoder::Base)?;

    let _scope = b.scope("loss");
    let prototypes = step.variables.get(PROTOTYPES)?;
    let z = |of: usize| l2_normalize(b, view(b, projections, of)?);
    let z = [z(0)?, z(1)?];
    let scores = |z: Value| b.dot(z, prototypes, &[1], &[1]);
    let s = [scores(z[0])?, scores(z[1])?];
    let codes = codes(step, swav, z, s, prototypes)?;
    let tau = moco_v3::temperature(&step.config.method);
    let loss = b.add(
        soft_cross_entropy(b, b.scale(s[0], 1.0 / tau)?, codes[1])?,
        soft_cross_entropy(b, b.scale(s[1], 1.0 / tau)?, codes[0])?,
    )?;
    Ok(Forward {
        loss: b.scale(loss, 0.5)?,
        features: view(b, features, 0)?,
        metrics: vec![
            siamese::output_std(b, z[0])?,
            ("prototypes_used", prototypes_used(b, codes[0])?),
        ],
    })
}

/// The codes of both views of the batch; renews the queue.
fn codes(step: &Step, swav: &Swav, z: [Value; 2], s: [Value; 2], c: Value) -> Result<[Value; 2]> {
    let b = step.b;
    let balanced = |scores, counts| {
        let (epsilon, iterations) = (swav.sinkhorn_epsilon, swav.sinkhorn_iterations);
        sinkhorn(b, scores, counts, epsilon, iterations)
    };
    if swav.queue == 0 {
        return Ok([balanced(s[0], None)?, balanced(s[1], None)?]);
    }
    let old = step.variables.get(QUEUE)?;
    let (rows, out, batch) = (swav.queue, c.dim(1), z[0].dim(0));
    let mut codes = s;
    let mut renewed = Vec::new();
    for view in 0..2 {
        let past = b.reshape(b.slice_axis(old, 0, view, view + 1)?, &[rows, out])?;
        // Written rows have length 1: the last one says whether all are.
        let last = b.slice_axis(past, 0, rows - 1, rows)?;
        let length = b.sum_all(b.mul(last, last)?)?;
        let full = b.compare(Comparison::Gt, length, b.full_like(length, 0.5)?)?;
        let full = b.broadcast_to(b.convert(full, DType::F32)?, &[rows])?;
        let own = b.full(full.shape.with_dims(&[batch]), 1.0)?;
        let past_scores = b.dot(past, c, &[1], &[1])?;
        let all = b.concatenate(&[past_scores, s[view]], 0)?;
        let counts = b.concatenate(&[full, own], 0)?;
        let found = balanced(all, Some(counts))?;
        codes[view] = b.slice_axis(found, 0, rows, rows + batch)?;
        let new = b.stop_gradient(b.constrain(z[view], &Sharding::replicated(2))?)?;
        let kept = b.slice_axis(past, 0, 0, rows - batch)?;
        renewed.push(match rows - batch {
            0 => new,
            _ => b.concatenate(&[new, kept], 0)?,
        });
    }
    step.variables.set(QUEUE, b.stack(&renewed)?);
    Ok(codes)
}

/// mean_i of -sum_k codes_ik log softmax(logits)_ik.
fn soft_cross_entropy(b: &Builder, logits: Value, codes: Value) -> Result<Value> {
    let highest = b.stop_gradient(b.reduce_max(logits, &[1])?)?;
    let shifted = b.sub(logits, b.spread(highest, logits, &[1])?)?;
    let total = b.log(b.sum(b.exp(shifted)?, &[1])?)?;
    let log_p = b.sub(shifted, b.spread(total, shifted, &[1])?)?;
    let per_row = b.sum(b.mul(codes, log_p)?, &[1])?;
    b.neg(b.mean(per_row, &[0])?)
}

/// How many prototypes are some sample's likeliest: falls to 1 in a collapse.
fn prototypes_used(b: &Builder, codes: Value) -> Result<Value> {
    let _scope = b.scope("prototypes_used");
    let highest = b.spread(b.reduce_max(codes, &[1])?, codes, &[1])?;
    let likeliest = b.compare(Comparison::Eq, codes, highest)?;
    let used = b.reduce_max(b.convert(likeliest, DType::F32)?, &[0])?;
    b.sum(used, &[0])
}

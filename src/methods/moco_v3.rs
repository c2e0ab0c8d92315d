//! MoCo v3 (Algorithm 1 of the paper, in the order of the public code).
//!
//! With f_q the base encoder, its projector and the predictor, and f_k the
//! momentum encoder and its projector:
//!
//! ```text
//! q1, q2 = f_q(x1), f_q(x2)
//! f_k    <- m f_k + (1 - m) f_q          (parameters; not BN buffers)
//! k1, k2 = f_k(x1), f_k(x2)              (no gradient)
//! loss   = ctr(q1, k2) + ctr(q2, k1)
//! ctr(q, k) = 2 tau mean_i CE(q k^T / tau, i)     q, k L2-normalised
//! ```
//!
//! Keys are those of the whole batch, over all devices. Both views pass an
//! encoder as one batch, picture by picture, so that weights are read once and
//! the batch stays split over devices as it was; each view has BN statistics
//! of its own, as if one had passed after the other.

use crate::config::{Method, RunConfig};
use crate::graph::block::Lowering;
use crate::graph::{Builder, DType, GraphError, Result, Sharding, Value};
use crate::models::vit::Trunk;
use crate::models::{compute_dtype, head, vit};
use crate::nn::{Mode, Role, Site, Spec, Variables, cross_entropy, l2_normalize, under};

/// Everything that the method has, under the public code's names.
pub fn specs(config: &RunConfig) -> Vec<Spec> {
    let method = &config.method;
    let mut encoder = vit::specs(&config.model);
    encoder.extend(under(
        "head",
        head::specs(&method.projector, config.model.dim),
    ));
    let momentum = encoder.clone();
    let predictor = head::specs(&method.predictor, method.projector.out);
    under("base_encoder", encoder)
        .chain(under("momentum_encoder", momentum).map(not_trained))
        .chain(under("predictor", predictor))
        .collect()
}

fn not_trained(spec: Spec) -> Spec {
    match spec.role {
        Role::Trained => spec.with_role(Role::Frozen),
        _ => spec,
    }
}

/// Where a variable's first value comes from: the momentum encoder starts as
/// a copy of the base encoder.
pub fn starts_as(name: &str) -> String {
    match name.strip_prefix("momentum_encoder.") {
        Some(rest) => format!("base_encoder.{rest}"),
        None => name.to_owned(),
    }
}

/// The loss of equal chances, 4 tau ln N for a batch of N.
pub fn chance_loss(method: &Method, batch: usize) -> f64 {
    4.0 * method.temperature * (batch as f64).ln()
}

/// What a forward pass gives.
pub struct Forward {
    /// f32 scalar.
    pub loss: Value,
    /// The base encoder's features of the first view [B, dim], for monitors.
    pub features: Value,
}

/// The loss of two normalised views [B, 3, S, S]. Leaves the new momentum
/// encoder and the new BN buffers in `variables`; `momentum` is m, f32 scalar.
pub fn forward(
    b: &Builder,
    config: &RunConfig,
    lowering: Lowering,
    variables: &Variables,
    views: [Value; 2],
    momentum: Value,
) -> Result<Forward> {
    let site = Site::new(
        b,
        variables,
        compute_dtype(config.model.compute_dtype),
        Mode::Train,
    );
    let method = &config.method;
    let batch = views[0].dim(0);
    let pictures = {
        let _scope = b.scope("views");
        let [_, channels, height, width] = views[0].dims() else {
            let shape = views[0].shape;
            let reason = format!("a view is {shape}, not [B, 3, S, S]");
            return Err(GraphError::Invalid(reason));
        };
        let one = |view: Value| b.reshape(view, &[batch, 1, *channels, *height, *width]);
        let both = b.concatenate(&[one(views[0])?, one(views[1])?], 1)?;
        b.reshape(both, &[2 * batch, *channels, *height, *width])?
    };
    let encode = |name: &str, differentiable: bool| {
        let encoder = site.at(name);
        let trunk = Trunk {
            lowering,
            differentiable,
        };
        let features = vit::vit(&encoder, &config.model, trunk, pictures)?;
        let _scope = encoder.enter();
        let features = b.reshape(features, &[batch, 2, config.model.dim])?;
        let projected = head::head(&encoder.at("head"), &method.projector, features)?;
        Ok((features, projected))
    };
    let view = |both: Value, i: usize| {
        let one = b.slice_axis(both, 1, i, i + 1)?;
        b.reshape(one, &[batch, both.dim(2)])
    };
    let (features, projected) = encode("base_encoder", true)?;
    let queries = head::head(&site.at("predictor"), &method.predictor, projected)?;
    update_momentum_encoder(b, config, variables, momentum)?;
    let (_, keys) = encode("momentum_encoder", false)?;
    let _scope = b.scope("loss");
    let loss = b.add(
        contrastive(b, view(queries, 0)?, view(keys, 1)?, method.temperature)?,
        contrastive(b, view(queries, 1)?, view(keys, 0)?, method.temperature)?,
    )?;
    Ok(Forward {
        loss,
        features: view(features, 0)?,
    })
}

fn update_momentum_encoder(
    b: &Builder,
    config: &RunConfig,
    variables: &Variables,
    momentum: Value,
) -> Result<()> {
    let _scope = b.scope("momentum_update");
    let rest = b.sub(b.full_like(momentum, 1.0)?, momentum)?;
    for spec in specs(config) {
        let followed = spec.name.starts_with("momentum_encoder.")
            && spec.role != Role::Buffer
            && !spec.name.ends_with(".pos_embed");
        if followed {
            let slow = variables.get(&spec.name)?;
            let fast = variables.get(&starts_as(&spec.name))?;
            let new = b.add(b.mul(slow, momentum)?, b.mul(fast, rest)?)?;
            // The keys have no gradient, and neither has what makes them.
            variables.set(&spec.name, b.stop_gradient(new)?);
        }
    }
    Ok(())
}

/// One direction of the loss: `q`, `k` [N, out], temperature `tau`; row i of
/// the keys is the positive of row i of the queries. No gradient into `k`.
pub fn contrastive(b: &Builder, q: Value, k: Value, tau: f64) -> Result<Value> {
    let q = l2_normalize(b, q)?;
    let k = b.stop_gradient(l2_normalize(b, k)?)?;
    // Every device needs the keys of all devices.
    let k = b.constrain(k, &Sharding::replicated(2))?;
    let logits = b.scale(b.dot(q, k, &[1], &[1])?, 1.0 / tau)?;
    let labels = b.iota(q.shape.with_dims(&[q.dim(0)]).with_dtype(DType::I32), 0)?;
    b.scale(cross_entropy(b, logits, labels)?, 2.0 * tau)
}

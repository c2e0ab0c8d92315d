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
//! Heads: projector of 3 layers, predictor of 2, BN after every layer. Keys
//! are those of the whole batch, over all devices. Options: no predictor, no
//! BN in the heads, BN over both crops together, 1 in place of 2 tau.

use super::contrastive::{logits, own_row, retrieval};
use super::siamese::{self, Pass, view};
use super::{Forward, Method, Step, never_held, nothing_to_prepare};
use crate::config::{LossScale, Method as Config, RunConfig};
use crate::graph::Result;

pub(super) const METHOD: Method = Method {
    specs: siamese::specs,
    prepare: nothing_to_prepare,
    forward,
    chance_loss,
    held_steps: never_held,
};

/// 4 tau ln N for a batch of N: twice 2 tau times N equal chances.
fn chance_loss(config: &RunConfig) -> f64 {
    2.0 * loss_scale(&config.method) * (config.batch as f64).ln()
}

/// The temperature of a contrastive method.
pub(super) fn temperature(method: &Config) -> f64 {
    method.temperature.unwrap_or(1.0)
}

/// What the loss is multiplied by.
pub(super) fn loss_scale(method: &Config) -> f64 {
    match method.loss_scale {
        LossScale::TwoTau => 2.0 * temperature(method),
        LossScale::One => 1.0,
    }
}

fn forward(step: &Step) -> Result<Forward> {
    let (b, method) = (step.b, &step.config.method);
    let Pass { features, z, q, k } = siamese::pass(step)?;

    let _scope = b.scope("loss");
    let logits = |of: usize| {
        let (q, k) = (view(b, q, of)?, view(b, k, 1 - of)?);
        logits(b, q, k, temperature(method))
    };
    let logits = [logits(0)?, logits(1)?];
    let ctr = |of: usize| b.scale(own_row(b, logits[of])?, loss_scale(method));
    let mut metrics = vec![siamese::output_std(b, view(b, z, 0)?)?];
    metrics.extend(retrieval(b, logits[0])?);
    Ok(Forward {
        loss: b.add(ctr(0)?, ctr(1)?)?,
        features: view(b, features, 0)?,
        metrics,
    })
}

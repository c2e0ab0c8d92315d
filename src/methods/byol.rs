//! BYOL (Grill et al. 2020): predict the momentum encoder's projection of the
//! other view; no negatives.
//!
//! With f_q the base encoder, its projector and the predictor, and f_k the
//! momentum encoder (the original's target network) and its projector:
//!
//! ```text
//! q1, q2 = f_q(x1), f_q(x2)
//! f_k    <- m f_k + (1 - m) f_q          (parameters; not BN buffers)
//! k1, k2 = f_k(x1), f_k(x2)              (no gradient)
//! loss   = d(q1, k2) + d(q2, k1)
//! d(q, k) = mean_i (2 - 2 cos(q_i, k_i))
//! ```
//!
//! Heads have BN in their hidden layers, not in their output layers (appendix
//! A, "MLP heads in BYOL and SwAV"). Without the predictor it collapses.

use super::siamese::{self, Pass, view};
use super::{Forward, Method, Step, never_held, nothing_to_prepare};
use crate::graph::{Builder, Result, Value};

pub(super) const METHOD: Method = Method {
    specs: siamese::specs,
    prepare: nothing_to_prepare,
    forward,
    // Twice 2 - 2 cos of orthogonal outputs.
    chance_loss: |_| 4.0,
    held_steps: never_held,
};

fn forward(step: &Step) -> Result<Forward> {
    let b = step.b;
    let Pass { features, z, q, k } = siamese::pass(step)?;

    let _scope = b.scope("loss");
    let d = |of: usize| distance(b, view(b, q, of)?, view(b, k, 1 - of)?);
    Ok(Forward {
        loss: b.add(d(0)?, d(1)?)?,
        features: view(b, features, 0)?,
        metrics: vec![siamese::output_std(b, view(b, z, 0)?)?],
    })
}

/// mean_i (2 - 2 cos(q_i, k_i)) of rows.
fn distance(b: &Builder, q: Value, k: Value) -> Result<Value> {
    let cosine = siamese::mean_cosine(b, q, k)?;
    b.shift(b.scale(cosine, -2.0)?, 2.0)
}

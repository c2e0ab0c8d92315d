//! SimCLR (Chen et al. 2020): one encoder, negatives from the batch, gradients
//! through both sides of every pair.
//!
//! ```text
//! z1, z2 = f(x1), f(x2)                  encoder and projector, L2-normalised
//! loss   = mean of both directions of
//!   both_views:  -log exp(z1_i z2_i / tau) /
//!                (sum_j exp(z1_i z2_j / tau) + sum_{j != i} exp(z1_i z1_j / tau))
//!   other_view:  CE(z1 z2^T / tau, i)
//! ```
//!
//! `both_views` is the original's NT-Xent; `other_view` has MoCo v3's negatives
//! and is what the TPU code of the paper's ViT runs has. Projector of 3 layers
//! with BN after every layer, no predictor, no other state. BN is over both
//! crops together (appendix A, "BatchNorm").

use super::contrastive::{logits, retrieval};
use super::moco_v3::{loss_scale, temperature};
use super::siamese::{self, Encoder, view};
use super::{Forward, Method, Step, info_nce, never_held, nothing_to_prepare, nt_xent};
use crate::config::{Negatives, RunConfig};
use crate::graph::Result;

pub(super) const METHOD: Method = Method {
    specs: siamese::specs,
    prepare: nothing_to_prepare,
    forward,
    chance_loss,
    held_steps: never_held,
};

/// ln(2 N - 1) for a batch of N: as many candidates; ln N with those of the
/// other view alone.
fn chance_loss(config: &RunConfig) -> f64 {
    let candidates = match config.method.negatives {
        Some(Negatives::OtherView) => config.batch,
        _ => 2 * config.batch - 1,
    };
    loss_scale(&config.method) * (candidates as f64).ln()
}

fn forward(step: &Step) -> Result<Forward> {
    let (b, method) = (step.b, &step.config.method);
    let [features, z] = siamese::encode(step, Encoder::Base)?;
    let z = [view(b, z, 0)?, view(b, z, 1)?];

    let _scope = b.scope("loss");
    let tau = temperature(method);
    let loss = match method.negatives {
        Some(Negatives::OtherView) => {
            let both = b.add(info_nce(b, z[0], z[1], tau)?, info_nce(b, z[1], z[0], tau)?)?;
            b.scale(both, 0.5)?
        }
        _ => nt_xent(b, z[0], z[1], tau)?,
    };
    let mut metrics = vec![siamese::output_std(b, z[0])?];
    metrics.extend(retrieval(b, logits(b, z[0], z[1], tau)?)?);
    Ok(Forward {
        loss: b.scale(loss, loss_scale(method))?,
        features: view(b, features, 0)?,
        metrics,
    })
}

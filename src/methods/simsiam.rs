//! SimSiam (Chen and He 2021): predict the other view's projection, which has no
//! gradient; neither negatives nor a momentum encoder.
//!
//! With f the encoder with its projector, and h the predictor:
//!
//! ```text
//! z1, z2 = f(x1), f(x2)
//! p1, p2 = h(z1), h(z2)
//! loss   = (d(p1, stop(z2)) + d(p2, stop(z1))) / 2
//! d(p, z) = mean_i -cos(p_i, z_i)
//! ```
//!
//! BN follows every layer of the projector (the last one's without gain and
//! bias) and the hidden layer of the predictor (Sec. 3). Without the predictor
//! or without the stop-gradient it collapses (Sec. 4).

use super::siamese::{self, Encoder, view};
use super::{Forward, Method, Step, never_held, nothing_to_prepare};
use crate::graph::{Builder, Result, Value};

pub(super) const METHOD: Method = Method {
    specs: siamese::specs,
    prepare: nothing_to_prepare,
    forward,
    // The cosine of directions that have nothing to do with each other.
    chance_loss: |_| 0.0,
    held_steps: never_held,
};

fn forward(step: &Step) -> Result<Forward> {
    let b = step.b;
    let [features, z] = siamese::encode(step, Encoder::Base)?;
    let p = siamese::predict(step, z)?;

    let _scope = b.scope("loss");
    let d = |of: usize| distance(b, view(b, p, of)?, view(b, z, 1 - of)?);
    Ok(Forward {
        loss: b.scale(b.add(d(0)?, d(1)?)?, 0.5)?,
        features: view(b, features, 0)?,
        metrics: vec![siamese::output_std(b, view(b, z, 0)?)?],
    })
}

/// mean_i -cos(p_i, z_i) of rows; no gradient through z.
fn distance(b: &Builder, p: Value, z: Value) -> Result<Value> {
    b.neg(siamese::mean_cosine(b, p, b.stop_gradient(z)?)?)
}

//! Contrastive losses: the cross entropy of finding one's own among others.

use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, Result, Sharding, Value};
use crate::nn::{cross_entropy, l2_normalize};

/// InfoNCE (Eq. 1): `q`, `k` [N, out], temperature `tau`; row i of the keys is
/// the positive of row i of the queries, all others are negatives. Mean over
/// the queries. Gradients flow into both.
pub fn info_nce(b: &Builder, q: Value, k: Value, tau: f64) -> Result<Value> {
    own_row(b, logits(b, q, k, tau)?)
}

/// The cosines of all queries with all keys, over the temperature: [N, N].
pub(super) fn logits(b: &Builder, q: Value, k: Value, tau: f64) -> Result<Value> {
    let cosines = similarities(b, l2_normalize(b, q)?, l2_normalize(b, k)?)?;
    b.scale(cosines, 1.0 / tau)
}

/// What [`logits`] tell: the mean logit of a query with its own key and with
/// another's, and the share of queries whose own key is nearer than every
/// other.
pub(super) fn retrieval(b: &Builder, logits: Value) -> Result<Vec<(&'static str, Value)>> {
    let _scope = b.scope("retrieval");
    let logits = b.stop_gradient(logits)?;
    let places = logits.shape.with_dtype(DType::I32);
    let own = b.compare(Comparison::Eq, b.iota(places, 0)?, b.iota(places, 1)?)?;
    let zero = b.full_like(logits, 0.0)?;
    let positive = b.sum(b.select(own, logits, zero)?, &[1])?;
    let others = b.sum_all(b.select(own, zero, logits)?)?;
    let rows = logits.dim(0);
    let pairs = (rows * rows.saturating_sub(1)).max(1);
    // Equal to another key is not found: in a collapse all are equal.
    let rivals = b.select(own, b.full_like(logits, f64::NEG_INFINITY)?, logits)?;
    let nearest = b.reduce_max(rivals, &[1])?;
    let found = b.convert(b.compare(Comparison::Gt, positive, nearest)?, DType::F32)?;
    Ok(vec![
        ("positive_logit", b.mean(positive, &[0])?),
        ("negative_logit", b.scale(others, 1.0 / pairs as f64)?),
        ("key_found", b.mean(found, &[0])?),
    ])
}

/// SimCLR's loss, NT-Xent (Chen et al. 2020, Eq. 1): as [`info_nce`] in both
/// directions, the mean of them, with the other pictures of the query's own
/// view as negatives too.
pub fn nt_xent(b: &Builder, z1: Value, z2: Value, tau: f64) -> Result<Value> {
    let (z1, z2) = (l2_normalize(b, z1)?, l2_normalize(b, z2)?);
    let direction = |z: Value, other: Value| {
        let across = similarities(b, z, other)?;
        let within = similarities(b, z, z)?;
        let places = within.shape.with_dtype(DType::I32);
        let itself = b.compare(Comparison::Eq, b.iota(places, 0)?, b.iota(places, 1)?)?;
        // exp of it is 0 at any temperature.
        let within = b.select(itself, b.full_like(within, -1e9)?, within)?;
        let logits = b.concatenate(&[across, within], 1)?;
        own_row(b, b.scale(logits, 1.0 / tau)?)
    };
    b.scale(b.add(direction(z1, z2)?, direction(z2, z1)?)?, 0.5)
}

/// Products of all rows of `x` with all rows of `y`, over all devices.
fn similarities(b: &Builder, x: Value, y: Value) -> Result<Value> {
    // Every device needs the rows of all devices.
    let y = b.constrain(y, &Sharding::replicated(2))?;
    b.dot(x, y, &[1], &[1])
}

/// Cross entropy of row i's logits against label i.
pub(super) fn own_row(b: &Builder, logits: Value) -> Result<Value> {
    let rows = logits.shape.with_dims(&[logits.dim(0)]);
    cross_entropy(b, logits, b.iota(rows.with_dtype(DType::I32), 0)?)
}

use super::{Init, Site, Spec, linear, linear_specs, under};
use crate::graph::{DType, Result, Value};

/// timm's names: one projection for queries, keys and values (in this order
/// in its rows), one for the output. Q, K and V are initialised each by
/// itself (MoCo v3's code): Xavier's bound of a [dim, dim] matrix.
pub fn attention_specs(dim: usize) -> Vec<Spec> {
    let init = Init::xavier(dim, dim);
    under("qkv", linear_specs(dim, 3 * dim, true, init))
        .chain(under("proj", linear_specs(dim, dim, true, init)))
        .collect()
}

/// Multi-head self-attention of `x` [B, T, D], scores scaled by 1/sqrt(D/heads).
///
/// Heads are a leading batch axis of both products: 1.5 times faster on the
/// CPU than with the axes as they come.
pub fn attention(site: &Site, x: Value, heads: usize) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let (batch, tokens, dim) = (x.dim(0), x.dim(1), x.dim(2));
    let width = dim / heads.max(1);
    let qkv = linear(&site.at("qkv"), x)?;
    let qkv = b.reshape(qkv, &[batch, tokens, 3, heads, width])?;
    let qkv = b.transpose(qkv, &[2, 0, 3, 1, 4])?;
    let part = |i: usize| {
        let part = b.slice_axis(qkv, 0, i, i + 1)?;
        b.reshape(part, &[batch, heads, tokens, width])
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let q = b.scale(q, (width as f64).powf(-0.5))?;
    let scores = b.dot_general(q, k, (&[0, 1], &[0, 1]), (&[3], &[3]))?;
    let weights = b.convert(softmax(site, scores)?, x.dtype())?;
    let y = b.dot_general(weights, v, (&[0, 1], &[0, 1]), (&[3], &[2]))?;
    let y = b.transpose(y, &[0, 2, 1, 3])?;
    linear(&site.at("proj"), b.reshape(y, &[batch, tokens, dim])?)
}

/// Along the last axis, in f32.
fn softmax(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let last = [x.rank() - 1];
    let x = b.convert(x, DType::F32)?;
    let highest = b.stop_gradient(b.reduce_max(x, &last)?)?;
    let e = b.exp(b.sub(x, b.spread(highest, x, &last)?)?)?;
    let total = b.sum(e, &last)?;
    b.div(e, b.spread(total, e, &last)?)
}

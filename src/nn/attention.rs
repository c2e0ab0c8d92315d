use super::linear::affine;
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
    let _scope = site.enter();
    let qkv = linear(&site.at("qkv"), x)?;
    let [q, k, v] = split_heads(site, qkv, heads)?;
    attend(site, q, k, v)
}

/// The first token's row of [`attention`], [B, 1, D]: only that token asks,
/// all answer.
pub fn class_attention(site: &Site, x: Value, heads: usize) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let dim = x.dim(2);
    let qkv = site.at("qkv");
    let rows = |x: Value, from: usize, to: usize| -> Result<Value> {
        let _scope = qkv.enter();
        let weight = b.slice_axis(qkv.get("weight")?, 0, from, to)?;
        let bias = b.slice_axis(qkv.get("bias")?, 0, from, to)?;
        affine(b, x, weight, Some(bias))
    };
    let class = b.slice_axis(x, 1, 0, 1)?;
    let [q] = split_heads(site, rows(class, 0, dim)?, heads)?;
    let [k, v] = split_heads(site, rows(x, dim, 3 * dim)?, heads)?;
    attend(site, q, k, v)
}

/// `x` [B, T, N * D] to N tensors [B, heads, T, D/heads].
fn split_heads<const N: usize>(site: &Site, x: Value, heads: usize) -> Result<[Value; N]> {
    let b = site.b;
    let (batch, tokens) = (x.dim(0), x.dim(1));
    let width = x.dim(2) / (N * heads).max(1);
    let x = b.reshape(x, &[batch, tokens, N, heads, width])?;
    let x = b.transpose(x, &[2, 0, 3, 1, 4])?;
    let mut parts = [x; N];
    for (i, part) in parts.iter_mut().enumerate() {
        let slice = b.slice_axis(x, 0, i, i + 1)?;
        *part = b.reshape(slice, &[batch, heads, tokens, width])?;
    }
    Ok(parts)
}

/// Softmax of scores, weighted values, heads joined and projected.
fn attend(site: &Site, q: Value, k: Value, v: Value) -> Result<Value> {
    let b = site.b;
    let (batch, heads, tokens, width) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
    let q = b.scale(q, (width as f64).powf(-0.5))?;
    let heads_first = (&[0, 1][..], &[0, 1][..]);
    let scores = b.dot_general_as(DType::F32, q, k, heads_first, (&[3], &[3]))?;
    let weights = b.convert(softmax(site, scores)?, q.dtype())?;
    let y = b.dot_general(weights, v, heads_first, (&[3], &[2]))?;
    let y = b.transpose(y, &[0, 2, 1, 3])?;
    let y = b.reshape(y, &[batch, tokens, heads * width])?;
    linear(&site.at("proj"), y)
}

/// Along the last axis of f32 scores.
fn softmax(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let last = [x.rank() - 1];
    let highest = b.stop_gradient(b.reduce_max(x, &last)?)?;
    let e = b.exp(b.sub(x, b.spread(highest, x, &last)?)?)?;
    let total = b.sum(e, &last)?;
    b.div(e, b.spread(total, e, &last)?)
}

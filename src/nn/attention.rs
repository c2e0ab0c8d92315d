use super::linear::affine;
use super::{Init, Site, Spec, linear, linear_specs, under};
use crate::graph::ops::AttentionKernel;
use crate::graph::{Builder, DType, Result, Value};

/// Pictures and heads are what products are taken for, one by one.
const HEADS_FIRST: (&[usize], &[usize]) = (&[0, 1], &[0, 1]);

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
pub fn attention(site: &Site, x: Value, heads: usize) -> Result<Value> {
    attend(site, x, x, heads)
}

/// The first token's row of [`attention`], [B, 1, D]: only that token asks,
/// all answer.
pub fn class_attention(site: &Site, x: Value, heads: usize) -> Result<Value> {
    attend(site, site.b.slice_axis(x, 1, 0, 1)?, x, heads)
}

/// The weights [B, heads, T] by which [`class_attention`] sums the values of the
/// tokens `x` [B, T, D]: each head's sum to 1 over the tokens.
pub fn class_attention_weights(site: &Site, x: Value, heads: usize) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let part = |i: usize, x: Value| split_heads(site, projected(site, i, x)?, heads);
    let class = b.slice_axis(x, 1, 0, 1)?;
    let weights = weights(b, part(0, class)?, part(1, x)?)?;
    b.reshape(weights, &[x.dim(0), heads, x.dim(1)])
}

/// As [`attention`], by a kernel of the plugin's where `kernel` is one.
pub fn attention_by(site: &Site, x: Value, heads: usize, kernel: AttentionKernel) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let part = |i: usize| {
        let x = projected(site, i, x)?;
        b.reshape(x, &[x.dim(0), x.dim(1), heads, x.dim(2) / heads.max(1)])
    };
    let y = b.attention(kernel, part(0)?, part(1)?, part(2)?)?;
    linear(&site.at("proj"), b.reshape(y, x.dims())?)
}

/// What the tokens `asking` [B, Q, D] take from the tokens `x` [B, T, D].
///
/// Queries, keys and values are three products with parts of one weight, not
/// parts of one product, which would have to be copied apart. Heads are a
/// leading batch axis of what follows: 1.5 times faster on the CPU than with
/// the axes as they come; a TPU does not care. Scores pass through the compute
/// type on their way to the softmax, which is f32: on a TPU, where memory
/// bounds the step, f32 scores would cost a seventh of a ViT-S's time.
fn attend(site: &Site, asking: Value, x: Value, heads: usize) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let part = |i: usize, x: Value| split_heads(site, projected(site, i, x)?, heads);
    let (q, k, v) = (part(0, asking)?, part(1, x)?, part(2, x)?);
    let weights = weights(b, q, k)?;
    let y = b.dot_general(weights, v, HEADS_FIRST, (&[3], &[2]))?;
    let y = b.transpose(y, &[0, 2, 1, 3])?;
    linear(&site.at("proj"), b.reshape(y, asking.dims())?)
}

/// The softmax [B, heads, Q, T] of the scaled scores of queries [B, heads, Q, W]
/// and keys [B, heads, T, W].
fn weights(b: &Builder, q: Value, k: Value) -> Result<Value> {
    let q = b.scale(q, (q.dim(3) as f64).powf(-0.5))?;
    let scores = b.dot_general_as(DType::F32, q, k, HEADS_FIRST, (&[3], &[3]))?;
    b.softmax(b.convert(scores, q.dtype())?)
}

/// Queries (0), keys (1) or values (2) of `x` [B, T, D].
fn projected(site: &Site, part: usize, x: Value) -> Result<Value> {
    let b = site.b;
    let qkv = site.at("qkv");
    let _scope = qkv.enter();
    let dim = x.dim(2);
    let rows = |name: &str| b.slice_axis(qkv.get(name)?, 0, part * dim, (part + 1) * dim);
    affine(b, x, rows("weight")?, Some(rows("bias")?))
}

/// `x` [B, T, D] to [B, heads, T, D/heads].
fn split_heads(site: &Site, x: Value, heads: usize) -> Result<Value> {
    let b = site.b;
    let width = x.dim(2) / heads.max(1);
    let x = b.reshape(x, &[x.dim(0), x.dim(1), heads, width])?;
    b.transpose(x, &[0, 2, 1, 3])
}

//! A trunk of equal blocks, and the ways to write it.

use super::ops::ScanBlock;
use super::{Builder, Graph, Result, Value};

/// How a trunk of equal blocks becomes ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowering {
    /// Every block written out; all inner values kept for the gradient.
    Unrolled,
    /// Every block written out; inner values of its attention recomputed.
    RematAttention,
    /// Every block written out; inner values of its MLP recomputed.
    RematMlp,
    /// Every block written out; inner values recomputed, but for those that the
    /// body marks by [`Builder::save`]: statistics, and what is cheap to keep.
    Remat,
    /// One loop; inner values recomputed.
    Scan,
}

impl Lowering {
    pub const ALL: [Self; 5] = [
        Self::Unrolled,
        Self::RematMlp,
        Self::RematAttention,
        Self::Remat,
        Self::Scan,
    ];

    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrolled => "unrolled",
            Self::RematAttention => "remat_attention",
            Self::RematMlp => "remat_mlp",
            Self::Remat => "remat",
            Self::Scan => "scan",
        }
    }

    /// Whether all inner values of a block are recomputed. Where only a part's
    /// are, the body itself says so, by [`Builder::remat`].
    pub fn recomputes_blocks(self) -> bool {
        matches!(self, Self::Remat | Self::Scan)
    }
}

/// Applies `body` once for each entry of `layers`, which holds that layer's
/// parameters in the order that `body` takes them after the value.
///
/// Gives the last value, and whatever else each layer's body gives. A body of
/// more than one result cannot be a loop.
///
/// Each layer's ops are under `scope` and its number: `blocks.3`. Only a
/// trunk that is `differentiable` may have gradients asked of it.
pub fn apply(
    b: &Builder,
    scope: &str,
    body: &Graph,
    x: Value,
    layers: &[Vec<Value>],
    lowering: Lowering,
    differentiable: bool,
) -> Result<(Value, Vec<Vec<Value>>)> {
    match lowering {
        Lowering::Scan if layers.len() > 1 => {
            let _scope = b.scope(scope);
            let mut operands = vec![x];
            for p in 0..layers[0].len() {
                let rows: Vec<Value> = layers.iter().map(|layer| layer[p]).collect();
                operands.push(b.stack(&rows)?);
            }
            let op = ScanBlock {
                body: body.clone(),
                length: layers.len(),
                saves: differentiable,
            };
            Ok((b.push1(op, &operands)?, Vec::new()))
        }
        _ => {
            let (mut x, mut others) = (x, Vec::new());
            for (i, params) in layers.iter().enumerate() {
                let _scope = b.scope(format!("{scope}.{i}"));
                let args = [&[x], &params[..]].concat();
                let mut found = call(b, body, &args, lowering, differentiable)?;
                x = found.remove(0);
                others.push(found);
            }
            Ok((x, others))
        }
    }
}

/// Applies `body` once: what [`apply`] does for one layer outside of a loop.
pub fn call(
    b: &Builder,
    body: &Graph,
    args: &[Value],
    lowering: Lowering,
    differentiable: bool,
) -> Result<Vec<Value>> {
    match differentiable && lowering.recomputes_blocks() {
        true => b.remat(body.clone(), args),
        false => b.inline(body, args),
    }
}

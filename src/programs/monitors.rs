//! What a step tells of its own health, beside loss and kNN: gradient norms by
//! layer, and how far features spread. docs/monitors.md says what is healthy.

use super::knn_queue::Queue;
use crate::graph::builder::function;
use crate::graph::{Builder, DType, Result, Value};
use crate::nn::relative_std;

/// `grad_norm/<layer>`: the norm of a layer's gradients, before clipping, as
/// the paper's Fig. 4 follows it.
pub const GRADIENT: &str = "grad_norm/";

/// The layer of a trained parameter: `patch_embed`, `cls_token`, `blocks.3`,
/// `norm`, `head`, `predictor`, or what else the name begins with.
pub fn layer(parameter: &str) -> &str {
    let name = parameter.strip_prefix("base_encoder.");
    let name = name.unwrap_or(parameter);
    // A block is a layer by its number; a head's parts are one layer.
    let dots = if name.starts_with("blocks.") { 2 } else { 1 };
    let end = name.match_indices('.').nth(dots - 1);
    end.map_or(name, |(at, _)| &name[..at])
}

/// The monitors of every step, f32 [] each, by name: gradient norms in the
/// order in which the layers first come, and `feature_std`, how far the
/// features [B, D] spread (see [`relative_std`]).
pub fn of_step<'a>(
    b: &Builder,
    gradients: impl Iterator<Item = (&'a str, Value)>,
    features: Value,
) -> Result<Vec<(String, Value)>> {
    let _scope = b.scope("monitors");
    let mut layers: Vec<(&str, Vec<Value>)> = Vec::new();
    for (name, gradient) in gradients {
        let gradient = b.convert(gradient, DType::F32)?;
        let square = b.sum_all(b.mul(gradient, gradient)?)?;
        let layer = layer(name);
        match layers.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, squares)) => squares.push(square),
            None => layers.push((layer, vec![square])),
        }
    }
    let mut metrics = Vec::new();
    for (layer, squares) in layers {
        let norm = b.sqrt(b.sum_all(b.stack(&squares)?)?)?;
        metrics.push((format!("{GRADIENT}{layer}"), norm));
    }
    let spread = relative_std(b, b.stop_gradient(features)?)?;
    metrics.push(("feature_std".to_owned(), spread));
    Ok(metrics)
}

/// The effective rank of the features in the queue, (tr C)^2 / tr C^2 with C
/// their covariance (the participation ratio): D where they spread evenly in
/// all directions, 1 where in one. NaN where `classify` (pred []) does not
/// hold and where the queue is empty.
pub fn effective_rank(b: &Builder, queue: &Queue, classify: Value) -> Result<Value> {
    let _scope = b.scope("effective_rank");
    let args = [queue.features, queue.filled];
    let shapes = args.map(|arg| arg.shape);
    let yes = function(&shapes, |b, args| {
        let (x, filled) = (args[0], b.convert(args[1], DType::F32)?);
        // Rows that are not filled are zeros: they add nothing to sums.
        let mean = b.sum(x, &[0])?;
        let mean = b.div(mean, b.broadcast_to(filled, mean.dims())?)?;
        let second = b.dot(x, x, &[0], &[0])?;
        let second = b.div(second, b.broadcast_to(filled, second.dims())?)?;
        let covariance = b.sub(second, outer(b, mean)?)?;
        let square_sum = b.sum_all(b.mul(covariance, covariance)?)?;
        // Rows have length 1: tr C = 1 - |mean|^2.
        let trace = b.neg(b.shift(b.sum_all(b.mul(mean, mean)?)?, -1.0)?)?;
        Ok(vec![b.div(b.mul(trace, trace)?, square_sum)?])
    })?;
    let no = function(&shapes, |b, _| Ok(vec![b.scalar(DType::F32, f64::NAN)?]))?;
    Ok(b.cond(classify, yes, no, &args)?[0])
}

/// x x^T of a vector.
fn outer(b: &Builder, x: Value) -> Result<Value> {
    let dims = [x.dim(0), x.dim(0)];
    b.mul(
        b.broadcast_in_dim(x, &dims, &[0])?,
        b.broadcast_in_dim(x, &dims, &[1])?,
    )
}

#[cfg(test)]
mod tests {
    use super::layer;

    #[test]
    fn layers_by_name() {
        for (parameter, expected) in [
            ("base_encoder.patch_embed.proj.weight", "patch_embed"),
            ("base_encoder.cls_token", "cls_token"),
            ("base_encoder.blocks.0.attn.qkv.weight", "blocks.0"),
            ("base_encoder.blocks.11.mlp.fc1.bias", "blocks.11"),
            ("base_encoder.norm.weight", "norm"),
            ("base_encoder.head.0.weight", "head"),
            ("predictor.3.weight", "predictor"),
            ("prototypes.weight", "prototypes"),
        ] {
            assert_eq!(layer(parameter), expected);
        }
    }
}

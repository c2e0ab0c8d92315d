use crate::graph::{Builder, DType, Result, Value};

/// Each vector along the last axis over max(its norm, 1e-12), in f32.
pub fn l2_normalize(b: &Builder, x: Value) -> Result<Value> {
    let last = [x.rank().saturating_sub(1)];
    let x = b.convert(x, DType::F32)?;
    let squared = b.sum(b.mul(x, x)?, &last)?;
    // max(norm, e) = sqrt(max(norm^2, e^2)), whose derivative is finite at 0.
    let floor = b.full_like(squared, 1e-24)?;
    let scale = b.rsqrt(b.max(squared, floor)?)?;
    b.mul(x, b.spread(scale, x, &last)?)
}

/// Softmax cross-entropy of `logits` [N, classes] against `labels` (i32 [N]),
/// mean over the rows.
pub fn cross_entropy(b: &Builder, logits: Value, labels: Value) -> Result<Value> {
    b.mean(cross_entropies(b, logits, labels)?, &[0])
}

/// As [`cross_entropy`], that of each row: [N].
pub fn cross_entropies(b: &Builder, logits: Value, labels: Value) -> Result<Value> {
    let highest = b.stop_gradient(b.reduce_max(logits, &[1])?)?;
    let shifted = b.sub(logits, b.spread(highest, logits, &[1])?)?;
    let total = b.log(b.sum(b.exp(shifted)?, &[1])?)?;
    let classes = b.iota(logits.shape.with_dtype(DType::I32), 1)?;
    let labels = b.spread(labels, classes, &[1])?;
    let wanted = b.compare(crate::graph::ops::Comparison::Eq, classes, labels)?;
    let picked = b.select(wanted, shifted, b.full_like(shifted, 0.0)?)?;
    let picked = b.sum(picked, &[1])?;
    b.sub(total, picked)
}

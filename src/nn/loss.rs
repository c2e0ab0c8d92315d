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
    let (shifted, total) = log_sum_exp(b, logits)?;
    let picked = of_class(b, shifted, labels)?;
    b.sub(total, picked)
}

/// Logits [N, classes] less the highest of each row, and the logarithm of the sum
/// of those's exponentials, [N].
pub fn log_sum_exp(b: &Builder, logits: Value) -> Result<(Value, Value)> {
    let highest = b.stop_gradient(b.reduce_max(logits, &[1])?)?;
    let shifted = b.sub(logits, b.spread(highest, logits, &[1])?)?;
    let total = b.log(b.sum(b.exp(shifted)?, &[1])?)?;
    Ok((shifted, total))
}

/// Of each row of `x` [N, classes] the element of its class (i32 [N]): [N].
pub fn of_class(b: &Builder, x: Value, labels: Value) -> Result<Value> {
    let classes = b.iota(x.shape.with_dtype(DType::I32), 1)?;
    let labels = b.spread(labels, classes, &[1])?;
    let wanted = b.compare(crate::graph::ops::Comparison::Eq, classes, labels)?;
    let picked = b.select(wanted, x, b.full_like(x, 0.0)?)?;
    b.sum(picked, &[1])
}

/// How far the directions of the rows of `x` [N, D] spread: the standard
/// deviation over the rows of each element of the normalised rows, mean over
/// the elements, times sqrt(D). About 1 where they spread over the sphere, 0
/// where all are one (Chen and He 2021, Sec. 4.1).
pub fn relative_std(b: &Builder, x: Value) -> Result<Value> {
    let x = l2_normalize(b, x)?;
    let mean = b.mean(x, &[0])?;
    let centred = b.sub(x, b.spread(mean, x, &[0])?)?;
    let std = b.sqrt(b.mean(b.mul(centred, centred)?, &[0])?)?;
    let mean = b.mean(std, &[0])?;
    b.scale(mean, (x.dim(1) as f64).sqrt())
}

use crate::graph::{Builder, Result, Value};

/// Below any sum of what [`sinkhorn`] divides by, but for sums of nothing.
const TINY: f64 = 1e-30;

/// Codes of `scores` [N, K] that use all K prototypes alike: Sinkhorn's
/// algorithm (Caron et al. 2020, Sec. 3.1; Cuturi 2013).
///
/// ```text
/// Q = exp(scores / epsilon)
/// repeat: each column over its sum (prototypes share alike),
///         each row over its sum (a sample's code sums to 1)
/// ```
///
/// Over all rows there are, whatever device holds them. Without iterations
/// only rows are divided: softmax codes, balanced by nothing. `counts` [N]
/// is 1 for rows that take part and 0 for others, whose codes are 0; all take
/// part if it is absent. f32, and no gradient passes.
pub fn sinkhorn(
    b: &Builder,
    scores: Value,
    counts: Option<Value>,
    epsilon: f64,
    iterations: usize,
) -> Result<Value> {
    let _scope = b.scope("sinkhorn");
    let scores = b.stop_gradient(scores)?;
    // A common factor changes no code; this one keeps exp in range.
    let highest = b.reduce_max(scores, &[0, 1])?;
    let mut codes_nk = b.exp(b.scale(b.sub(scores, highest)?, 1.0 / epsilon)?)?;
    if let Some(counts) = counts {
        codes_nk = b.mul(codes_nk, b.spread(counts, codes_nk, &[1])?)?;
    }
    let over_sums = |x: Value, axis: usize| {
        let sums = b.sum(x, &[axis])?;
        let sums = b.max(sums, b.full_like(sums, TINY)?)?;
        b.div(x, b.spread(sums, x, &[axis])?)
    };
    for _ in 0..iterations {
        codes_nk = over_sums(over_sums(codes_nk, 0)?, 1)?;
    }
    if iterations == 0 {
        codes_nk = over_sums(codes_nk, 1)?;
    }
    Ok(codes_nk)
}

//! AdamW (Loshchilov and Hutter 2019), as PyTorch has it.
//!
//! ```text
//! m <- beta1 m + (1 - beta1) g          m^ = m / (1 - beta1^t)
//! v <- beta2 v + (1 - beta2) g^2        v^ = v / (1 - beta2^t)
//! p <- p - lr wd p - lr m^ / (sqrt(v^) + eps)
//! ```

use crate::config::Optimizer;
use crate::graph::{Builder, DType, Result, Value};

/// Names of the two moments, as PyTorch's state dictionary has them.
pub const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// What all tensors of one step share, scalars.
pub struct Step {
    /// 1 - lr wd
    keep: Value,
    /// lr / (1 - beta1^t)
    rate: Value,
    /// 1 / sqrt(1 - beta2^t)
    scale: Value,
}

impl Step {
    /// `lr` is f32, `step` i32 and counts from 0: t is one more.
    pub fn new(b: &Builder, config: &Optimizer, lr: Value, step: Value) -> Result<Self> {
        let t = b.shift(b.convert(step, DType::F32)?, 1.0)?;
        // 1 - beta^t without cancellation.
        let correction = |beta: f64| b.neg(b.expm1(b.scale(t, beta.ln())?)?);
        Ok(Self {
            keep: b.shift(b.scale(lr, -config.weight_decay)?, 1.0)?,
            rate: b.div(lr, correction(config.beta1)?)?,
            scale: b.rsqrt(correction(config.beta2)?)?,
        })
    }

    /// One tensor: its new value and its new moments.
    pub fn update(
        &self,
        b: &Builder,
        config: &Optimizer,
        p: Value,
        g: Value,
        [m, v]: [Value; 2],
    ) -> Result<(Value, [Value; 2])> {
        let average = |old: Value, new: Value, beta: f64| {
            b.add(b.scale(old, beta)?, b.scale(new, 1.0 - beta)?)
        };
        let m = average(m, g, config.beta1)?;
        let v = average(v, b.mul(g, g)?, config.beta2)?;
        let denominator = b.shift(b.mul(b.sqrt(v)?, self.scale)?, config.eps)?;
        let change = b.div(b.mul(m, self.rate)?, denominator)?;
        let p = b.sub(b.mul(p, self.keep)?, change)?;
        Ok((p, [m, v]))
    }
}

//! AdamW (Loshchilov and Hutter 2019), as PyTorch has it, with m^ and v^ of
//! [`Moments`].
//!
//! ```text
//! p <- p - lr wd p - lr m^ / (sqrt(v^) + eps)
//! ```
//!
//! Everything decays: biases, norms and the class token too (the authors'
//! code has one group).

use super::{Moments, Pace};
use crate::graph::{Builder, Result, Value};

pub struct AdamW {
    moments: Moments,
    /// 1 - lr wd
    keep: Value,
    /// lr / (1 - beta1^t)
    rate: Value,
}

impl AdamW {
    pub fn new(b: &Builder, moments: Moments, pace: Pace) -> Result<Self> {
        Ok(Self {
            keep: b.shift(b.scale(pace.lr, -pace.weight_decay)?, 1.0)?,
            rate: b.div(pace.lr, moments.share1)?,
            moments,
        })
    }

    pub fn update(
        &self,
        b: &Builder,
        p: Value,
        g: Value,
        slots: [Value; 2],
    ) -> Result<(Value, [Value; 2])> {
        let [m, v] = self.moments.renew(b, g, slots)?;
        let change = b.div(b.mul(m, self.rate)?, self.moments.denominator(b, v)?)?;
        Ok((b.sub(b.mul(p, self.keep)?, change)?, [m, v]))
    }
}

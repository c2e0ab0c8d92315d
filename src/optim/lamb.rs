//! LAMB (You et al. 2020; Fig. 3 of the paper), with m^ and v^ of [`Moments`].
//!
//! ```text
//! r = m^ / (sqrt(v^) + eps) + wd p
//! p <- p - lr (|p| / |r|) r              the ratio is 1 where a norm is 0
//! ```
//!
//! Vectors and scalars (biases and norms) have neither decay nor ratio.

use super::{Moments, Pace, adapts, trust_ratio};
use crate::graph::{Builder, Result, Value};

pub struct Lamb {
    moments: Moments,
    pace: Pace,
}

impl Lamb {
    pub fn new(moments: Moments, pace: Pace) -> Self {
        Self { moments, pace }
    }

    pub fn update(
        &self,
        b: &Builder,
        p: Value,
        g: Value,
        slots: [Value; 2],
    ) -> Result<(Value, [Value; 2])> {
        let [m, v] = self.moments.renew(b, g, slots)?;
        let m_hat = b.div(m, self.moments.share1)?;
        let mut r = b.div(m_hat, self.moments.denominator(b, v)?)?;
        let mut lr = self.pace.lr;
        if adapts(p) {
            r = b.add(r, b.scale(p, self.pace.weight_decay)?)?;
            lr = b.mul(lr, trust_ratio(b, p, r, 1.0)?)?;
        }
        Ok((b.sub(p, b.mul(r, lr)?)?, [m, v]))
    }
}

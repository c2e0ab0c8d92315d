use crate::graph::{Builder, DType, Result, Value};

/// The moving averages of Adam (Kingma and Ba 2015) and what removes their
/// bias towards the zeros they start from, in step t counted from 1.
///
/// ```text
/// m <- beta1 m + (1 - beta1) g          m^ = m / (1 - beta1^t)
/// v <- beta2 v + (1 - beta2) g^2        v^ = v / (1 - beta2^t)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    beta1: f64,
    beta2: f64,
    /// 1 - beta1^t
    pub share1: Value,
    /// 1 / sqrt(1 - beta2^t)
    scale2: Value,
    eps: f64,
}

impl Moments {
    /// PyTorch's names of m and v.
    pub const SLOTS: &[&str] = &["exp_avg", "exp_avg_sq"];

    /// `step` is i32 and counts from 0.
    pub fn new(b: &Builder, [beta1, beta2]: [f64; 2], eps: f64, step: Value) -> Result<Self> {
        let t = b.shift(b.convert(step, DType::F32)?, 1.0)?;
        // 1 - beta^t without cancellation; beta 0 has nothing to correct.
        let share = |beta: f64| match beta {
            0.0 => b.full_like(t, 1.0),
            _ => b.neg(b.expm1(b.scale(t, beta.ln())?)?),
        };
        Ok(Self {
            beta1,
            beta2,
            share1: share(beta1)?,
            scale2: b.rsqrt(share(beta2)?)?,
            eps,
        })
    }

    /// The new m and v.
    pub fn renew(&self, b: &Builder, g: Value, [m, v]: [Value; 2]) -> Result<[Value; 2]> {
        let average = |old: Value, new: Value, beta: f64| {
            b.add(b.scale(old, beta)?, b.scale(new, 1.0 - beta)?)
        };
        Ok([
            average(m, g, self.beta1)?,
            average(v, b.mul(g, g)?, self.beta2)?,
        ])
    }

    /// sqrt(v^) + eps
    pub fn denominator(&self, b: &Builder, v: Value) -> Result<Value> {
        b.shift(b.mul(b.sqrt(v)?, self.scale2)?, self.eps)
    }
}

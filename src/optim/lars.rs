//! LARS (You, Gitman and Ginsburg 2017) in the form of the public code of MoCo
//! v3 and BYOL.
//!
//! ```text
//! g <- g + wd p
//! g <- c (|p| / |g|) g                   the factor is 1 where a norm is 0
//! mu <- momentum mu + g
//! p <- p - lr mu
//! ```
//!
//! c is the trust coefficient. Vectors and scalars (biases and norms) have
//! neither decay nor factor. The paper's factor has |g| + wd |p| for our
//! |g + wd p|, and its average has the learning rate inside.

use super::{Pace, adapts, trust_ratio};
use crate::graph::{Builder, Result, Value};

pub struct Lars {
    pub momentum: f64,
    pub trust_coefficient: f64,
    pub pace: Pace,
}

impl Lars {
    /// The name in the authors' state dictionary.
    pub const SLOTS: &[&str] = &["mu"];

    pub fn update(&self, b: &Builder, p: Value, g: Value, mu: Value) -> Result<(Value, Value)> {
        let mut g = g;
        if adapts(p) {
            g = b.add(g, b.scale(p, self.pace.weight_decay)?)?;
            g = b.mul(g, trust_ratio(b, p, g, self.trust_coefficient)?)?;
        }
        let mu = b.add(b.scale(mu, self.momentum)?, g)?;
        Ok((b.sub(p, b.mul(mu, self.pace.lr)?)?, mu))
    }
}

//! Stochastic gradient descent with momentum, as PyTorch has it.
//!
//! ```text
//! g <- g + wd p
//! buf <- momentum buf + g
//! p <- p - lr buf
//! ```
//!
//! Everything decays.

use super::Pace;
use crate::graph::{Builder, Result, Value};

#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    pub momentum: f64,
    pub pace: Pace,
}

impl Sgd {
    /// PyTorch's name.
    pub const SLOTS: &[&str] = &["momentum_buffer"];

    /// The new value and the new buffer of a parameter `p` with gradient `g`.
    pub fn update(&self, b: &Builder, p: Value, g: Value, buf: Value) -> Result<(Value, Value)> {
        let g = b.add(g, b.scale(p, self.pace.weight_decay)?)?;
        let buf = b.add(b.scale(buf, self.momentum)?, g)?;
        Ok((b.sub(p, b.mul(buf, self.pace.lr)?)?, buf))
    }
}

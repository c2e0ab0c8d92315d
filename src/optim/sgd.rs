//! Stochastic gradient descent with momentum, as PyTorch has it (no
//! dampening, no Nesterov, no weight decay).
//!
//! ```text
//! v <- mu v + g          p <- p - lr v
//! ```

use crate::graph::{Builder, Result, Value};

/// Name of v, as PyTorch's state dictionary has it.
pub const BUFFER: &str = "momentum_buffer";

/// One tensor: its new value and its new buffer. `lr` has the shape of `p`,
/// or a scalar's.
pub fn update(
    b: &Builder,
    p: Value,
    g: Value,
    buffer: Value,
    lr: Value,
    momentum: f64,
) -> Result<[Value; 2]> {
    let buffer = b.add(b.scale(buffer, momentum)?, g)?;
    Ok([b.sub(p, b.mul(lr, buffer)?)?, buffer])
}

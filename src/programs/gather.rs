//! A program after which every device holds the whole of a split array.

use super::Program;
use crate::graph::{Builder, Mesh, Result, Shape, Sharding};

/// For `devices` devices. Argument: `part` of `shape`, split over the devices
/// along `axis`. Result: `whole`, on every device.
pub fn build(devices: usize, shape: Shape, axis: usize) -> Result<Program> {
    let rank = shape.dims().len();
    let b = Builder::new();
    let part = b.sharded_input("part", shape, Some(Sharding::split(rank, axis)));
    // One all-gather.
    let whole = b.constrain(part, &Sharding::replicated(rank))?;
    b.sharded_output("whole", whole, Some(Sharding::replicated(rank)));
    Ok(Program {
        name: "gather",
        graph: b.finish()?,
        mesh: (devices > 1).then(|| Mesh::data(devices)),
        state: 0,
        metrics: Vec::new(),
    })
}

//! A program in which all hosts see what each of them brings: before the first
//! step they compare what they are about to run.

use super::Program;
use crate::graph::{Builder, DType, Mesh, Result, Shape, Sharding};

/// For `devices` devices. Argument: `words` i32 [devices, words], a row of each
/// device; its host's. Result: `all`, the same, whole on every device.
pub fn build(devices: usize, words: usize) -> Result<Program> {
    let b = Builder::new();
    let shape = Shape::new(DType::I32, &[devices, words]);
    let own = b.sharded_input("words", shape, Some(Sharding::split(2, 0)));
    // One all-gather.
    let all = b.constrain(own, &Sharding::replicated(2))?;
    b.sharded_output("all", all, Some(Sharding::replicated(2)));
    Ok(Program {
        name: "agreement",
        graph: b.finish()?,
        mesh: (devices > 1).then(|| Mesh::data(devices)),
        state: 0,
        metrics: Vec::new(),
    })
}

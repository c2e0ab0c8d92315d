//! What happens to pictures on the device.

use crate::graph::{Builder, DType, Result, Shape, Value};

/// Pictures u8 [B, S, S, 3] to f32 [B, 3, S, S], normalised.
pub fn normalise(b: &Builder, pictures: Value, mean: [f64; 3], std: [f64; 3]) -> Result<Value> {
    let _scope = b.scope("normalise");
    let x = b.transpose(b.convert(pictures, DType::F32)?, &[0, 3, 1, 2])?;
    let table = |values: [f64; 3]| b.table(Shape::new(DType::F32, &[3, 1, 1]), values.to_vec());
    let x = b.sub(b.scale(x, 1.0 / 255.0)?, table(mean)?)?;
    b.mul(x, table(std.map(|s| 1.0 / s))?)
}

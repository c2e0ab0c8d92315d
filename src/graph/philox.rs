//! Philox 4x32-10 as graph ops: the generator of [`crate::rng`], bit by bit,
//! for draws that are made on the device.

use super::{Builder, DType, Result, Value};

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The upper and lower half of `x * factor`.
fn wide_product(b: &Builder, x: Value, factor: u32) -> Result<[Value; 2]> {
    let wide = b.convert(x, DType::U64)?;
    let wide = b.mul(wide, b.full_like(wide, f64::from(factor))?)?;
    let high = b.shift_right_logical(wide, b.full_like(wide, 32.0)?)?;
    // Converting to fewer bits keeps the lower ones.
    Ok([b.convert(high, DType::U32)?, b.convert(wide, DType::U32)?])
}

/// One block for each element: 128 random bits of a counter and a key. All
/// are u32 and broadcast against each other.
pub fn philox(b: &Builder, counter: [Value; 4], key: [Value; 2]) -> Result<[Value; 4]> {
    let [mut c, mut k] = [counter.to_vec(), key.to_vec()];
    for round in 0..10 {
        if round > 0 {
            for (word, step) in k.iter_mut().zip(WEYL) {
                *word = b.add(*word, b.full_like(*word, f64::from(step))?)?;
            }
        }
        let [high0, low0] = wide_product(b, c[0], MULTIPLIER[0])?;
        let [high1, low1] = wide_product(b, c[2], MULTIPLIER[1])?;
        c = vec![
            b.xor(b.xor(high1, c[1])?, k[0])?,
            low1,
            b.xor(b.xor(high0, c[3])?, k[1])?,
            low0,
        ];
    }
    Ok([c[0], c[1], c[2], c[3]])
}

/// Random bits (u32) as f32 uniform in [0, 1): the upper 24 of them, so that
/// every value is exact.
pub fn uniform(b: &Builder, bits: Value) -> Result<Value> {
    let upper = b.shift_right_logical(bits, b.full_like(bits, 8.0)?)?;
    b.scale(b.convert(upper, DType::F32)?, 1.0 / f64::from(1 << 24))
}

//! Arrays as the bytes that a plugin takes and gives.

use half::{bf16, f16};
use xla_moco::graph::DType;

use crate::array::Array;

fn encode_one(dtype: DType, x: f64) -> Vec<u8> {
    match dtype {
        DType::Pred => vec![u8::from(x != 0.0)],
        DType::I8 => (x as i8).to_le_bytes().into(),
        DType::I32 => (x as i32).to_le_bytes().into(),
        DType::I64 => (x as i64).to_le_bytes().into(),
        DType::U8 => vec![x as u8],
        DType::U32 => (x as u32).to_le_bytes().into(),
        DType::U64 => (x as u64).to_le_bytes().into(),
        DType::BF16 => bf16::from_f64(x).to_le_bytes().into(),
        DType::F16 => f16::from_f64(x).to_le_bytes().into(),
        DType::F32 => (x as f32).to_le_bytes().into(),
        DType::F64 => x.to_le_bytes().into(),
    }
}

fn decode_one(dtype: DType, bytes: &[u8]) -> f64 {
    macro_rules! read {
        ($t:ty) => {
            <$t>::from_le_bytes(bytes.try_into().unwrap())
        };
    }
    match dtype {
        DType::Pred | DType::U8 => f64::from(bytes[0]),
        DType::I8 => f64::from(read!(i8)),
        DType::I32 => f64::from(read!(i32)),
        DType::I64 => read!(i64) as f64,
        DType::U32 => f64::from(read!(u32)),
        DType::U64 => read!(u64) as f64,
        DType::BF16 => read!(bf16).to_f64(),
        DType::F16 => read!(f16).to_f64(),
        DType::F32 => f64::from(read!(f32)),
        DType::F64 => read!(f64),
    }
}

pub fn encode(dtype: DType, array: &Array) -> Vec<u8> {
    array
        .data
        .iter()
        .flat_map(|x| encode_one(dtype, *x))
        .collect()
}

pub fn decode(dtype: DType, dims: &[usize], bytes: &[u8]) -> Array {
    let data = bytes
        .chunks_exact(dtype.bytes())
        .map(|b| decode_one(dtype, b))
        .collect();
    Array::new(dims, data)
}

/// The nearest number of the type.
pub fn round(dtype: DType, x: f64) -> f64 {
    decode_one(dtype, &encode_one(dtype, x))
}

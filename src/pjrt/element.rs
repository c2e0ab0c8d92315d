//! Element types as the C API numbers them. Host bytes are little-endian; a
//! predicate takes one byte, 0 or 1.

use crate::graph::DType;

/// `PJRT_Buffer_Type` of the C API.
pub(super) fn code(dtype: DType) -> u32 {
    match dtype {
        DType::Pred => 1,
        DType::I8 => 2,
        DType::I32 => 4,
        DType::I64 => 5,
        DType::U8 => 6,
        DType::U32 => 8,
        DType::U64 => 9,
        DType::F16 => 10,
        DType::F32 => 11,
        DType::F64 => 12,
        DType::BF16 => 13,
    }
}

/// The type with that `PJRT_Buffer_Type`; none for types that no program of
/// ours uses.
pub(super) fn from_code(wanted: u32) -> Option<DType> {
    DType::ALL.into_iter().find(|t| code(*t) == wanted)
}

/// Bytes of a dense array; none on overflow.
pub(super) fn dense_bytes(element: DType, dims: &[usize]) -> Option<usize> {
    dims.iter()
        .try_fold(element.bytes(), |bytes, &dim| bytes.checked_mul(dim))
}

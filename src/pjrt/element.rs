//! Element types that cross the boundary between host and device.

/// Element type of a buffer. Host bytes are little-endian; a predicate takes
/// one byte, 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ElementType {
    Pred,
    S8,
    S32,
    S64,
    U8,
    U32,
    U64,
    BF16,
    F16,
    F32,
    F64,
}

impl ElementType {
    pub const ALL: [ElementType; 11] = [
        ElementType::Pred,
        ElementType::S8,
        ElementType::S32,
        ElementType::S64,
        ElementType::U8,
        ElementType::U32,
        ElementType::U64,
        ElementType::BF16,
        ElementType::F16,
        ElementType::F32,
        ElementType::F64,
    ];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            ElementType::Pred | ElementType::S8 | ElementType::U8 => 1,
            ElementType::BF16 | ElementType::F16 => 2,
            ElementType::S32 | ElementType::U32 | ElementType::F32 => 4,
            ElementType::S64 | ElementType::U64 | ElementType::F64 => 8,
        }
    }

    /// `PJRT_Buffer_Type` of the C API.
    pub fn code(self) -> u32 {
        match self {
            ElementType::Pred => 1,
            ElementType::S8 => 2,
            ElementType::S32 => 4,
            ElementType::S64 => 5,
            ElementType::U8 => 6,
            ElementType::U32 => 8,
            ElementType::U64 => 9,
            ElementType::F16 => 10,
            ElementType::F32 => 11,
            ElementType::F64 => 12,
            ElementType::BF16 => 13,
        }
    }

    /// The type with that `PJRT_Buffer_Type`; none for types that no program
    /// of ours uses.
    pub fn from_code(code: u32) -> Option<ElementType> {
        Self::ALL.into_iter().find(|t| t.code() == code)
    }
}

/// Bytes of a dense array; none on overflow.
pub(super) fn dense_bytes(element: ElementType, dims: &[usize]) -> Option<usize> {
    dims.iter()
        .try_fold(element.size(), |bytes, &dim| bytes.checked_mul(dim))
}

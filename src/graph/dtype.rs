use std::fmt;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    Pred,
    I8,
    I32,
    I64,
    U8,
    U32,
    U64,
    BF16,
    F16,
    F32,
    F64,
}

impl DType {
    pub const ALL: [Self; 11] = [
        Self::Pred,
        Self::I8,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U32,
        Self::U64,
        Self::BF16,
        Self::F16,
        Self::F32,
        Self::F64,
    ];

    /// The name in MLIR: `f32`, `ui8`, `i1`.
    pub fn mlir(self) -> &'static str {
        match self {
            Self::Pred => "i1",
            Self::I8 => "i8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "ui8",
            Self::U32 => "ui32",
            Self::U64 => "ui64",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Bytes of one element in memory (a predicate takes one).
    pub fn bytes(self) -> usize {
        match self {
            Self::Pred | Self::I8 | Self::U8 => 1,
            Self::BF16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether gradients can flow through values of this type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::BF16 | Self::F16 | Self::F32 | Self::F64)
    }

    /// Whether it is a signed or unsigned integer (a predicate is not).
    pub fn is_int(self) -> bool {
        !self.is_float() && self != Self::Pred
    }

    /// Whether it is an unsigned integer.
    pub fn is_unsigned(self) -> bool {
        matches!(self, Self::U8 | Self::U32 | Self::U64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mlir())
    }
}

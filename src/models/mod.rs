//! Backbones and heads.

pub mod head;
pub mod vit;

use crate::config::ComputeDtype;
use crate::graph::DType;

/// The type of activations and matrix products.
pub fn compute_dtype(config: ComputeDtype) -> DType {
    match config {
        ComputeDtype::Bf16 => DType::BF16,
        ComputeDtype::F32 => DType::F32,
    }
}

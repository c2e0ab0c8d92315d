//! Backbones and heads.

pub mod head;
pub mod vit;

use crate::bad_input;
use crate::config::{ComputeDtype, Model, RunConfig, word};
use crate::graph::DType;

/// The type of activations and matrix products.
pub fn compute_dtype(config: ComputeDtype) -> DType {
    match config {
        ComputeDtype::Bf16 => DType::BF16,
        ComputeDtype::F32 => DType::F32,
    }
}

/// Whether a backbone's features of a picture depend on the pictures beside it,
/// as through BN.
pub fn mixes_samples(_model: &Model) -> bool {
    false
}

/// Refuses to take a batch in chunks where that would not be exact.
///
/// # Errors
/// [`crate::error::BadInput`].
pub fn check_accumulate(config: &RunConfig) -> anyhow::Result<()> {
    if config.accumulate == 1 || !mixes_samples(&config.model) {
        return Ok(());
    }
    Err(bad_input!(
        "`accumulate` is {}, and `model.arch` {} has BN, whose statistics are those of the whole \
         batch: no chunk has them, so the result would be another; set `accumulate` to 1, and use \
         more devices or `lowering` \"remat\" for less memory",
        config.accumulate,
        word(&config.model.arch),
    ))
}

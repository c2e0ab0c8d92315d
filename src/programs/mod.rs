//! What gets compiled.

pub mod augment;

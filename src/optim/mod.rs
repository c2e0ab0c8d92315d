//! Optimizers: how gradients change parameters.

pub mod adamw;
pub mod sgd;

//! Optimizers: how gradients change parameters.

pub mod adamw;

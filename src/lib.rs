//! xla-moco: self-supervised pre-training of Vision Transformers as one XLA
//! program. See ARCHITECTURE.md for the map and the invariants.

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod convert;
pub mod data;
pub mod error;
pub mod eval;
pub mod graph;
mod hash;
pub mod ledger;
pub mod methods;
pub mod models;
pub mod monitor;
pub mod nn;
pub mod optim;
pub mod pickle;
pub mod pjrt;
pub mod plan;
pub mod programs;
pub mod report;
pub mod rng;
pub mod train;

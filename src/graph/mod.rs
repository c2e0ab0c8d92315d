//! The compiler frontend: shapes, ops, reverse mode, StableHLO.
//!
//! Pure: no IO, no PJRT, no clock, no randomness. The same calls give the
//! same graph and the same text, to the byte.
//!
//! Reading order: [`Shape`], [`Graph`] (the arena), [`Builder`] (how ops are
//! added), `ops` (one entry per op: attributes, shape rule, derivative,
//! emission), [`vjp`] (reverse mode), [`block`] (the transformer trunk's
//! lowerings), [`emit`] (StableHLO text), [`cost`] (FLOPs and bytes),
//! [`graphviz`] (a picture).

pub mod block;
pub(crate) mod builder;
pub mod cost;
mod dtype;
pub mod emit;
mod error;
pub mod graphviz;
mod ir;
pub mod ops;
pub mod philox;
mod prune;
mod shape;
mod sharding;
mod verify;
pub mod vjp;

pub use builder::{Builder, ScopeGuard};
pub use dtype::DType;
pub use error::GraphError;
pub use ir::{Def, Graph, Input, Node, Output, Value};
pub use shape::{MAX_RANK, Shape};
pub use sharding::{Mesh, Sharding};

/// The result of adding to a graph.
pub type Result<T> = std::result::Result<T, GraphError>;

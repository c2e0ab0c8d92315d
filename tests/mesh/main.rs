//! One program on meshes of several sizes, and in chunks: the same results,
//! and the collectives and memory that they take.

mod chunks;
mod collectives;
mod compile;
mod equality;
mod hosts;
mod local_bn;
mod run;
#[path = "../support/mod.rs"]
mod support;

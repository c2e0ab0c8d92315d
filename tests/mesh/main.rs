//! One program on meshes of several sizes: the same results, and the
//! collectives that they take.

mod collectives;
mod compile;
mod equality;
mod local_bn;
mod run;
#[path = "../support/mod.rs"]
mod support;

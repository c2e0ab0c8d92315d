//! The graph on real plugins: one table that drives every op, the lowerings
//! of blocks, and the text that graphs become.

mod array;
mod blocks;
mod bytes;
mod chunks;
mod cudnn;
mod module;
mod philox;
mod plugin;
mod row;
mod rows;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod text;
mod tpu;

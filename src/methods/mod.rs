//! Self-supervised methods, and training with labels: each says what variables
//! it has and how the loss of the views of a batch comes about.
//!
//! A method is one file that ends in its [`Method`], and one line of
//! [`method`]; its name and defaults are in [`crate::config::Method`].

mod byol;
mod contrastive;
mod moco_v3;
mod siamese;
mod simclr;
mod simsiam;
mod sinkhorn;
mod supervised;
mod swav;

pub use contrastive::{info_nce, nt_xent};
pub use siamese::both_views;
pub use sinkhorn::sinkhorn;
pub use supervised::{class_logits, mixed_cross_entropy};

use crate::config::{MethodName, RunConfig};
use crate::graph::block::Lowering;
use crate::graph::{Builder, Result, Value};
use crate::nn::{Spec, Variables};

/// A method as the train step sees it.
struct Method {
    /// Everything it has, in the order of the state.
    specs: fn(&RunConfig) -> Vec<Spec>,
    /// Changes variables before gradients are taken with respect to them.
    prepare: fn(&Builder, &Variables) -> Result<()>,
    /// Leaves the new values of what is not trained in the variables.
    forward: fn(&Step) -> Result<Forward>,
    /// The loss of a model that knows nothing.
    chance_loss: fn(&RunConfig) -> f64,
    /// How many updates leave a trained variable as it is.
    held_steps: fn(&RunConfig, &str) -> u64,
}

/// No variable is changed before the step.
fn nothing_to_prepare(_: &Builder, _: &Variables) -> Result<()> {
    Ok(())
}

/// Every update changes everything.
fn never_held(_: &RunConfig, _: &str) -> u64 {
    0
}

fn method(config: &RunConfig) -> &'static Method {
    match config.method.name {
        MethodName::MocoV3 => &moco_v3::METHOD,
        MethodName::SimClr => &simclr::METHOD,
        MethodName::Byol => &byol::METHOD,
        MethodName::SwAv => &swav::METHOD,
        MethodName::SimSiam => &simsiam::METHOD,
        MethodName::Supervised => &supervised::METHOD,
    }
}

/// What a forward pass is given.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub b: &'a Builder,
    pub config: &'a RunConfig,
    pub lowering: Lowering,
    pub variables: &'a Variables,
    pub pictures: Pictures<'a>,
    /// Of training with labels.
    pub supervision: Option<Supervision>,
    /// The momentum encoder's coefficient, f32 [].
    pub momentum: Value,
}

/// What a step knows of its pictures beside the pixels.
#[derive(Clone, Copy)]
pub struct Supervision {
    /// i32 [B].
    pub labels: Value,
    /// What of each picture is itself; the rest is the one opposite in the
    /// batch, whose row counts from the end. f32 [].
    pub share: Value,
    /// Where samples skip branches: scales of both branches of each block, f32
    /// [B, blocks, 2].
    pub drop_path: Option<Value>,
}

/// The views of every picture.
#[derive(Clone, Copy)]
pub enum Pictures<'a> {
    /// As one batch; of two views see [`both_views`].
    Whole(Value),
    /// Made and encoded chunk by chunk.
    InChunks(&'a Chunks<'a>),
}

/// Makes the views, as one batch, of as many pictures as the sources it is given
/// have rows.
pub type MakePictures<'a> = dyn Fn(&Builder, &[Value]) -> Result<Value> + 'a;

/// Pictures that never exist all at once: what encoders keep of them grows with
/// a chunk, not with the batch.
pub struct Chunks<'a> {
    /// How many there are.
    pub number: usize,
    /// What views are made of, [B, ...] each.
    pub sources: Vec<Value>,
    pub pictures: &'a MakePictures<'a>,
}

/// What a forward pass gives.
pub struct Forward {
    /// f32 [].
    pub loss: Value,
    /// The base encoder's features of the first view [B, dim], for monitors.
    pub features: Value,
    /// What else there is to tell, f32 [] each, by name.
    pub metrics: Vec<(&'static str, Value)>,
}

/// Everything that the method has: parameters, buffers and other state.
pub fn specs(config: &RunConfig) -> Vec<Spec> {
    (method(config).specs)(config)
}

/// Whose first value a variable takes: the momentum encoder starts as a copy
/// of the base encoder, everything else as itself.
pub fn starts_as(name: &str) -> String {
    siamese::followed_by(name).unwrap_or_else(|| name.to_owned())
}

/// What the method does to its variables at the start of a step, before
/// gradients are taken with respect to them.
pub fn prepare(b: &Builder, config: &RunConfig, variables: &Variables) -> Result<()> {
    (method(config).prepare)(b, variables)
}

/// The loss of a batch's views. Leaves the new values of everything that is not
/// trained (BN buffers, the momentum encoder, queues) in the variables.
pub fn forward(step: &Step) -> Result<Forward> {
    (method(step.config).forward)(step)
}

/// The loss of a model that knows nothing.
pub fn chance_loss(config: &RunConfig) -> f64 {
    (method(config).chance_loss)(config)
}

/// How many of the first updates leave the trained variable `name` as it is.
pub fn held_steps(config: &RunConfig, name: &str) -> u64 {
    (method(config).held_steps)(config, name)
}

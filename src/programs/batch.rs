//! The train step's arguments that are not state, and the pictures made of
//! them.

use super::augment::augment;
use super::mixing;
use super::train_step::{TrainStep, Views, f32_shape, replicated_input};
use crate::config::RunConfig;
use crate::data::augment::COLUMNS;
use crate::graph::{Builder, DType, Result, Shape, Sharding, Value};
use crate::methods::{self, Supervision};
use crate::models;

/// The argument i32 [devices] by which a host asks all to stop, and the metric
/// that says whether one did: in programs of several devices.
pub const STOP: &str = "stop";

/// The arguments that are not state.
pub(super) struct Batch {
    /// What views are made of: see [`views`].
    pub sources: Vec<Value>,
    /// With a queue.
    pub monitored: Option<Monitored>,
    /// Of training with labels.
    pub supervised: Option<Supervised>,
    /// Where there are several devices: for each, whether its host wants to
    /// stop.
    pub stop: Option<Value>,
    pub lr: Value,
    pub momentum: Value,
    pub step: Value,
}

/// What the kNN monitor has to know of a batch.
pub(super) struct Monitored {
    pub labels: Value,
    pub ids: Value,
    pub classify: Value,
}

/// What training with labels has to know of a batch.
pub(super) struct Supervised {
    pub labels: Value,
    /// f32 [[`mixing::MIX`]].
    pub mix: Value,
    /// f32 [B, 4], see [`mixing::erase`].
    pub erase: Option<Value>,
    /// f32 [B, blocks, 2], see [`Supervision`].
    pub drop_path: Option<Value>,
}

pub(super) fn batch_inputs(b: &Builder, spec: &TrainStep) -> Result<Batch> {
    let (batch, side) = (spec.config.batch, spec.config.model.image_size);
    let split = |name: &str, dtype: DType, dims: &[usize]| split(b, name, Shape::new(dtype, dims));
    let number = spec.config.method.name.views();
    let each = |names: [&str; 2], dtype: DType, dims: &[usize]| {
        let names = names.into_iter().take(number);
        names
            .map(|name| split(name, dtype, dims))
            .collect::<Vec<_>>()
    };
    let names = ["view1", "view2"];
    let sources = match spec.views {
        Views::Normalised => each(names, DType::F32, &[batch, 3, side, side]),
        Views::Augmented => [
            each(names, DType::U8, &[batch, side, side, 3]),
            each(["augment1", "augment2"], DType::F32, &[batch, COLUMNS]),
        ]
        .concat(),
    };
    let scalar = |name: &str, dtype: DType| replicated_input(b, name, Shape::scalar(dtype));
    let monitored = (spec.queue > 0).then(|| Monitored {
        labels: split("labels", DType::I32, &[batch]),
        ids: split("ids", DType::U32, &[batch]),
        classify: scalar("classify", DType::Pred),
    });
    let supervised = spec.config.method.supervised.as_ref().map(|supervised| {
        let split = |name: &str, dims: &[usize]| split(name, DType::F32, dims);
        let blocks = models::blocks(&spec.config.model);
        Supervised {
            labels: self::split(b, "labels", Shape::new(DType::I32, &[batch])),
            mix: replicated_input(b, "mix", f32_shape(&[mixing::MIX])),
            erase: (spec.config.augment.erase_p > 0.0).then(|| split("erase", &[batch, 4])),
            drop_path: (supervised.drop_path > 0.0)
                .then(|| split("drop_path", &[batch, blocks, 2])),
        }
    });
    let devices = spec.config.mesh.data;
    Ok(Batch {
        sources,
        monitored,
        supervised,
        stop: (devices > 1).then(|| split(STOP, DType::I32, &[devices])),
        lr: scalar("lr", DType::F32),
        momentum: scalar("momentum", DType::F32),
        step: scalar("step", DType::I32),
    })
}

/// An argument whose rows are split over the devices.
fn split(b: &Builder, name: &str, shape: Shape) -> Value {
    b.sharded_input(name, shape, Some(Sharding::split(shape.rank(), 0)))
}

/// The views as one batch, normalised f32 [views n, 3, S, S], of n rows of a
/// batch's sources.
pub(super) fn pictures(b: &Builder, spec: &TrainStep, sources: &[Value]) -> Result<Value> {
    let number = spec.config.method.name.views();
    let view = |i: usize| match spec.views {
        Views::Normalised => Ok(sources[i]),
        Views::Augmented => augment(b, sources[i], sources[number + i], &spec.config.augment, i),
    };
    match number {
        1 => view(0),
        _ => methods::both_views(b, [view(0)?, view(1)?]),
    }
}

impl Supervised {
    /// Erases and mixes pictures [B, 3, S, S].
    pub fn change(&self, b: &Builder, config: &RunConfig, x: Value, step: Value) -> Result<Value> {
        let x = match self.erase {
            Some(boxes) => mixing::erase(b, x, boxes, mixing::normal(b, x, config.seed, step)?)?,
            None => x,
        };
        match &config.method.supervised {
            Some(s) if s.mixup > 0.0 || s.cutmix > 0.0 => mixing::mix(b, x, self.mix),
            _ => Ok(x),
        }
    }

    pub fn supervision(&self, b: &Builder) -> Result<Supervision> {
        Ok(Supervision {
            labels: self.labels,
            share: mixing::share(b, self.mix)?,
            drop_path: self.drop_path,
        })
    }
}

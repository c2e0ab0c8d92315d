//! What a step takes beside the state: a batch and some scalars.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::devices::Devices;
use super::draws;
use super::hosts::Exchange;
use super::plan::Plan;
use crate::config::RunConfig;
use crate::data::{Batch, Dataset, Loader, LoaderConfig};
use crate::graph::Input;
use crate::pjrt::Buffer;
use crate::programs::batch::STOP;

/// The scalars of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars {
    pub lr: f32,
    /// Of the momentum encoder.
    pub momentum: f32,
    /// The update's number, from 0.
    pub step: i32,
    /// Whether the kNN monitor classifies this batch.
    pub classify: bool,
    /// Whether this host wants all to stop.
    pub stop: bool,
    /// Devices of this host.
    pub devices: usize,
}

impl Scalars {
    /// Those of the update of number `update`, from 0.
    /// `rows` is this host's share of the batch.
    pub fn of(config: &RunConfig, plan: &Plan, update: u64, rows: &Range<usize>) -> Result<Self> {
        Ok(Self {
            lr: plan.schedule.lr(config.peak_lr(), update) as f32,
            momentum: plan.schedule.momentum(&config.method, update) as f32,
            step: i32::try_from(update).context("a run has less than 2^31 steps")?,
            classify: plan.classifies(update + 1),
            stop: false,
            devices: config.mesh.data * rows.len() / config.batch,
        })
    }
}

/// The `rows` of the batches of some steps, counted from 0.
///
/// # Errors
/// As [`Loader::new`].
pub fn loader(
    config: &RunConfig,
    train: &Arc<Dataset>,
    rows: Range<usize>,
    steps: Range<u64>,
) -> Result<Loader> {
    let loader = LoaderConfig {
        seed: config.seed,
        batch: config.batch,
        px: config.model.image_size as u32,
        views: config.method.name.views(),
        augment: config.augment.clone(),
        workers: config.data.worker_count(),
        prefetch: config.data.prefetch,
        corrupt_limit: config.data.corrupt_limit,
        rows,
        steps,
    };
    Loader::new(train.clone(), loader)
}

/// Copies everything that `inputs` name to the devices: for each device its
/// arguments, in the program's order. What is split over hosts whose plugin
/// cannot reach the others' devices comes through the `exchange`, whose wait may
/// be `excused`.
pub fn upload(
    config: &RunConfig,
    inputs: &[Input],
    devices: &Devices,
    exchange: Option<&Exchange>,
    batch: &Batch,
    scalars: &Scalars,
    excused: &mut dyn FnMut() -> bool,
) -> Result<Vec<Vec<Buffer>>> {
    let mut rows: Vec<Vec<Buffer>> = (0..devices.len()).map(|_| Vec::new()).collect();
    for input in inputs {
        let mut bytes = host_bytes(&input.name, config, batch, scalars)?;
        let is_split = input.sharding.as_ref().is_some_and(|s| !s.is_replicated());
        if let Some(exchange) = exchange.filter(|_| is_split) {
            let name = format!("{} of step {}", input.name, scalars.step + 1);
            bytes = Cow::Owned(exchange.join(&name, &bytes, excused)?);
        }
        let buffers = devices
            .place_own(&bytes, input.value.shape, input.sharding.as_ref())
            .with_context(|| format!("cannot give the step its argument {}", input.name))?;
        for (row, buffer) in rows.iter_mut().zip(buffers) {
            row.push(buffer);
        }
    }
    Ok(rows)
}

/// An argument's content, little-endian.
pub fn host_bytes<'a>(
    name: &str,
    config: &RunConfig,
    batch: &'a Batch,
    scalars: &Scalars,
) -> Result<Cow<'a, [u8]>> {
    fn join<const N: usize>(parts: impl Iterator<Item = [u8; N]>) -> Cow<'static, [u8]> {
        Cow::Owned(parts.flatten().collect())
    }
    let floats = |values: &[f32]| join(values.iter().map(|x| x.to_le_bytes()));
    let supervised = || {
        let found = config.method.supervised.as_ref();
        found.with_context(|| format!("{name} is of training with labels"))
    };
    Ok(match name {
        "view1" => Cow::Borrowed(&batch.views[0]),
        "view2" => Cow::Borrowed(&batch.views[1]),
        "augment1" => floats(&batch.params[0]),
        "augment2" => floats(&batch.params[1]),
        "labels" => join(batch.labels.iter().map(|x| x.to_le_bytes())),
        "ids" => join(batch.ids.iter().map(|x| x.to_le_bytes())),
        "classify" => Cow::Owned(vec![u8::from(scalars.classify)]),
        STOP => join((0..scalars.devices).map(|_| i32::from(scalars.stop).to_le_bytes())),
        "lr" => floats(&[scalars.lr]),
        "momentum" => floats(&[scalars.momentum]),
        "step" => Cow::Owned(scalars.step.to_le_bytes().to_vec()),
        "mix" => {
            let side = config.model.image_size;
            floats(&draws::mix(
                supervised()?,
                config.seed,
                scalars.step as u32,
                side,
            ))
        }
        "drop_path" => floats(&draws::drop_path(
            config,
            supervised()?,
            batch.epoch,
            &batch.ids,
        )),
        "erase" => floats(&draws::erase(config, batch.epoch, &batch.ids)),
        other => bail!("the program takes an argument {other}, which the loop does not know"),
    })
}

//! The arguments of a run's first step, for whoever runs the program outside
//! of the loop.

use anyhow::{Context, Result};

use super::feed::{self, Scalars};
use super::pictures::Pictures;
use super::plan::Plan;
use super::state::host_tensor;
use crate::checkpoint::{HostTensor, Snapshot};
use crate::config::RunConfig;
use crate::programs::train_step::TrainStep;
use crate::programs::{Program, train_step};

/// Every argument of the train step by its name: the initial state, the first
/// batch and the first step's scalars, as [`super::run`] gives them.
///
/// # Errors
/// [`crate::error::BadInput`] for pictures that cannot be read or are too few.
pub fn first_arguments(
    config: &RunConfig,
    pictures: &Pictures,
    program: &Program,
) -> Result<Snapshot> {
    let plan = Plan::new(config, pictures.train.len(), None)?;
    let rows = 0..config.batch;
    let mut loader = feed::loader(config, &pictures.train, rows.clone(), 0..1)?;
    let batch = loader.next().context("the loader has no first batch")??;
    let scalars = Scalars::of(config, &plan, 0, &rows)?;
    let step = TrainStep::of_run(config, pictures.training_set());
    let state = train_step::initial_state(&step);
    let mut tensors: Vec<HostTensor> = state
        .into_iter()
        .map(|array| host_tensor(array.name, array.shape, array.data))
        .collect();
    for input in &program.graph.inputs[program.state..] {
        let data = feed::host_bytes(&input.name, config, &batch, &scalars)?.into_owned();
        tensors.push(host_tensor(input.name.clone(), input.value.shape, data));
    }
    Snapshot::new(0, tensors)
}

//! Steps that are timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Options, Spread};
use crate::data::Batch;
use crate::graph::Input;
use crate::pjrt::{Buffer, Client, Executable};
use crate::programs::train_step::{self, TrainStep};
use crate::rng::{Purpose, Stream};
use crate::train::clock::Clock;
use crate::train::compilation::CompiledStep;
use crate::train::devices::Devices;
use crate::train::feed::{self, Scalars};
use crate::train::hosts;
use crate::train::in_flight::{Enqueued, InFlight};
use crate::train::pictures::Pictures;
use crate::train::plan::Plan;
use crate::train::state::DeviceState;

/// Steps enqueued at once, as in a run.
const MAX_IN_FLIGHT: usize = 2;

/// A step that is ready to run.
pub struct Runner<'a> {
    options: &'a Options,
    pictures: &'a Pictures,
    plan: &'a Plan,
    inputs: Vec<Input>,
    executable: Executable,
    devices: Devices,
    state: DeviceState,
    /// The place of the loss among the metrics.
    loss: usize,
    /// The batch that stays on the devices.
    batch: Vec<Vec<Buffer>>,
}

/// What was measured of some steps.
pub struct Measured {
    pub spread: Spread,
    pub input_wait: f64,
    pub last_loss: f32,
}

impl<'a> Runner<'a> {
    pub fn new(
        options: &'a Options,
        pictures: &'a Pictures,
        plan: &'a Plan,
        client: &Arc<Client>,
        compiled: CompiledStep,
        step: &TrainStep,
    ) -> Result<Self> {
        let config = &options.config;
        let CompiledStep {
            program,
            executable,
            ..
        } = compiled;
        let devices = Devices::of(client, &executable, config.mesh.data)?;
        let initial = train_step::initial_state(step);
        let state = DeviceState::upload(&program, &devices, initial)?;
        let loss = program.metrics.iter().position(|name| name == "loss");
        let inputs = program.graph.inputs[program.state..].to_vec();
        let mut runner = Self {
            options,
            pictures,
            plan,
            inputs,
            executable,
            devices,
            state,
            loss: loss.context("the program has no metric named loss")?,
            batch: Vec::new(),
        };
        let mut loader = feed::loader(config, &pictures.train, 0..config.batch, 0..1)?;
        let batch = loader.next().context("the loader has no first batch")??;
        runner.batch = runner.upload(&batch, 0)?;
        Ok(runner)
    }

    fn upload(&self, batch: &Batch, update: u64) -> Result<Vec<Vec<Buffer>>> {
        let config = &self.options.config;
        let scalars = Scalars::of(config, self.plan, update, &(0..config.batch))?;
        if !self.options.core {
            let devices = &self.devices;
            let excused = &mut || false;
            return feed::upload(
                config,
                &self.inputs,
                devices,
                None,
                batch,
                &scalars,
                excused,
            );
        }
        let mut rows: Vec<Vec<Buffer>> = (0..self.devices.len()).map(|_| Vec::new()).collect();
        for input in &self.inputs {
            let shape = input.value.shape;
            let bytes = match input.name.as_str() {
                "view1" => noise(shape.bytes() / 4, 1),
                "view2" => noise(shape.bytes() / 4, 2),
                name => feed::host_bytes(name, config, batch, &scalars)?.into_owned(),
            };
            let parts = self.devices.place(&bytes, shape, input.sharding.as_ref())?;
            for (row, part) in rows.iter_mut().zip(parts) {
                row.push(part);
            }
        }
        Ok(rows)
    }

    /// Times steps that go one behind the other, as in a run: from the end of
    /// one to the end of the next.
    pub fn measure(&mut self, with_input: bool) -> Result<Measured> {
        let options = self.options;
        let config = &options.config;
        let steps = options.warmup + options.steps;
        let mut loader = match with_input {
            true => Some(feed::loader(
                config,
                &self.pictures.train,
                0..config.batch,
                0..steps as u64,
            )?),
            false => None,
        };
        let mut in_flight = InFlight::new(hosts::deadline(config))?;
        let mut clock = Clock::new(0.0);
        let mut took = Vec::new();
        let mut waited = 0.0;
        let mut last_loss = f32::NAN;
        let mut done = 0;
        for step in 1..=steps + MAX_IN_FLIGHT {
            let allowed = match step <= steps {
                true => {
                    let asked = Instant::now();
                    let fresh = match &mut loader {
                        None => None,
                        Some(loader) => {
                            let batch = loader.next().context("the loader has no batch")??;
                            let buffers = self.upload(&batch, step as u64 - 1)?;
                            loader.recycle(batch);
                            Some(buffers)
                        }
                    };
                    let input = match with_input {
                        true => asked.elapsed(),
                        false => Duration::ZERO,
                    };
                    let inputs = fresh.as_ref().unwrap_or(&self.batch);
                    let at = Instant::now();
                    let (metrics, events) = self.state.step(&self.executable, inputs)?;
                    in_flight.push(Enqueued {
                        step: step as u64,
                        at,
                        input,
                        done: events,
                        metrics: metrics.to_host_async()?,
                    });
                    MAX_IN_FLIGHT - 1
                }
                false => 0,
            };
            while let Some(finished) = in_flight.take(allowed, &mut || false)? {
                done += 1;
                let one = clock.step(&finished);
                if done > options.warmup {
                    took.push(one.seconds);
                    waited += one.seconds * one.input_wait();
                }
                let loss = finished.metrics.get(self.loss);
                last_loss = *loss.context("the step gave too few metrics")?;
            }
        }
        ensure!(took.len() == options.steps, "{} steps are done", took.len());
        let seconds: f64 = took.iter().sum();
        Ok(Measured {
            spread: Spread::of(took).context("no step was timed")?,
            input_wait: waited / seconds.max(1e-9),
            last_loss,
        })
    }
}

/// f32 numbers with the spread of normalised pictures.
fn noise(count: usize, view: u32) -> Vec<u8> {
    let mut stream = Stream::new(0, Purpose::Augment, (0, view));
    let scale = 3f32.sqrt() / 2f32.powi(31);
    let value = |_| ((stream.bits() as f32) * scale - 3f32.sqrt()).to_le_bytes();
    (0..count).flat_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform in -sqrt(3)..sqrt(3): mean 0, variance 1.
    #[test]
    fn noise_is_spread_as_normalised_pictures_are() {
        let bytes = noise(10_000, 1);
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mean = values.iter().sum::<f32>() / 1e4;
        let square = values.iter().map(|x| x * x).sum::<f32>() / 1e4;
        assert!(
            mean.abs() < 0.05 && (square - 1.0).abs() < 0.05,
            "{mean} {square}"
        );
    }
}

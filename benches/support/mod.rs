//! What the benchmarks share: a train step as a module with named arguments,
//! and running it with its state fed back.
#![allow(dead_code)] // Each benchmark uses its part.

pub mod exported;
pub mod ours;
pub mod paired;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xla_moco::graph::DType;
use xla_moco::pjrt::{
    Arg, Buffer, Client, ClientOptions, CompileOptions, Executable, HloText, Program, export_hlo,
    install, quiet_plugin_logs,
};

/// Values by the name of the step's input that takes them.
pub type Values = BTreeMap<String, Vec<u8>>;

/// An input of a step.
#[derive(Clone, Debug)]
pub struct Input {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
}

/// A train step as a module. Its first `state` inputs are the state, its first
/// `state` results their next values; the last result holds the loss.
pub struct Step {
    /// StableHLO.
    pub text: String,
    pub inputs: Vec<Input>,
    pub state: usize,
    /// Where the loss stands in the last result.
    pub loss: usize,
}

/// One device of a plugin, its log kept quiet.
pub fn client(pjrt: &str) -> Result<Arc<Client>> {
    quiet_plugin_logs()?;
    let plugin = install::load(pjrt, &install::ResolveOptions::default())?;
    Client::new(&plugin, &ClientOptions::default())
}

impl Step {
    /// Compiles, and gives XLA's text of the program beside it.
    pub fn compile(
        &self,
        client: &Client,
        options: &CompileOptions,
    ) -> Result<(Arc<Executable>, HloText)> {
        let program = Program { text: &self.text };
        let (executable, hlo) =
            export_hlo(options, None, |options| client.compile(&program, options))?;
        let results = executable.num_outputs();
        ensure!(
            results == self.state + 1,
            "the step has {} state tensors, so its module should have one result more; it has {results}",
            self.state
        );
        Ok((Arc::new(executable), hlo))
    }
}

/// Seconds on the clock, and those of all processors in this process, which
/// other processes disturb less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    pub wall: f64,
    pub processor: f64,
}

struct Start {
    wall: Instant,
    processor: f64,
}

impl Time {
    fn now() -> Result<Start> {
        Ok(Start {
            processor: processor_seconds()?,
            wall: Instant::now(),
        })
    }
}

impl Start {
    fn elapsed(&self) -> Result<Time> {
        Ok(Time {
            wall: self.wall.elapsed().as_secs_f64(),
            processor: processor_seconds()? - self.processor,
        })
    }
}

/// Of the threads that live: a plugin's pool stays.
fn processor_seconds() -> Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let on_processor = stat.split(' ').next().unwrap_or_default();
        nanoseconds += on_processor.parse::<u64>()?;
    }
    Ok(1e-9 * nanoseconds as f64)
}

/// A step under way: its state on the device.
pub struct Runner {
    client: Arc<Client>,
    executable: Arc<Executable>,
    state: Vec<Buffer>,
    /// The inputs after the state; none for the number of the step.
    held: Vec<Option<Buffer>>,
    loss: usize,
    steps: i32,
}

impl Runner {
    /// Uploads `values`, one for each input but `step`, which counts from 0.
    ///
    /// # Errors
    /// If a value is missing or has another size than its input.
    pub fn new(
        client: &Arc<Client>,
        step: &Step,
        executable: &Arc<Executable>,
        values: &Values,
    ) -> Result<Runner> {
        let device = &client.devices()[0];
        let upload = |input: &Input| {
            let bytes = values
                .get(&input.name)
                .with_context(|| format!("no value for the input {}", input.name))?;
            client
                .buffer_from_host(bytes, input.dtype, &input.dims, device)
                .with_context(|| format!("input {}", input.name))
        };
        let (state, rest) = step.inputs.split_at(step.state);
        Ok(Runner {
            state: state.iter().map(upload).collect::<Result<_>>()?,
            held: rest
                .iter()
                .map(|input| (input.name != "step").then(|| upload(input)).transpose())
                .collect::<Result<_>>()?,
            client: Arc::clone(client),
            executable: Arc::clone(executable),
            loss: step.loss,
            steps: 0,
        })
    }

    /// Runs a step to its end. Gives the time from the call until the device
    /// is done, and the result that is not state.
    pub fn step(&mut self) -> Result<(Time, Buffer)> {
        let begin = Time::now()?;
        let number = self.client.buffer_from_host(
            &self.steps.to_le_bytes(),
            DType::I32,
            &[],
            &self.client.devices()[0],
        )?;
        let held = self.held.iter().map(|b| b.as_ref().unwrap_or(&number));
        let arguments = std::mem::take(&mut self.state)
            .into_iter()
            .map(Arg::Donate)
            .chain(held.map(Arg::Borrow))
            .collect();
        let mut run = self.executable.execute(vec![arguments])?;
        run.done[0].wait()?;
        let time = begin.elapsed()?;
        self.state = run.buffers.swap_remove(0);
        let last = self.state.pop().context("the step has no results")?;
        self.steps += 1;
        Ok((time, last))
    }

    /// Runs a step and reads its loss.
    pub fn loss(&mut self) -> Result<f32> {
        let bytes = self.step()?.1.to_host()?;
        let at = 4 * self.loss;
        let bytes = bytes
            .get(at..at + 4)
            .context("the step's last result is too short to hold the loss")?;
        Ok(f32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }
}

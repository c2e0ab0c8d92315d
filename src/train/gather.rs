//! What is split over the devices of several hosts, brought together for a
//! checkpoint: no host reaches the others' parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::hosts;
use super::in_flight::Late;
use crate::graph::{Shape, Sharding};
use crate::pjrt::{self, Arg, Buffer, Client, CompileOptions, Event, Executable};
use crate::programs::{Program, gather};

/// Between two looks at whether the devices are done.
const LOOK: Duration = Duration::from_millis(2);

/// The programs that gather a state's split tensors, one of each form.
pub struct Gather {
    executables: HashMap<(Shape, usize), Executable>,
    /// How long one may take: all hosts take part in it.
    deadline: Duration,
}

impl Gather {
    /// Compiles what the state of `program` needs on `devices` devices.
    pub fn new(
        client: &Arc<Client>,
        program: &Program,
        devices: usize,
        deadline: Duration,
    ) -> Result<Self> {
        let options = CompileOptions {
            num_partitions: devices,
            ..CompileOptions::default()
        };
        let mut executables = HashMap::new();
        for input in &program.graph.inputs[..program.state] {
            let shape = input.value.shape;
            let Some(axis) = input.sharding.as_ref().and_then(Sharding::split_axis) else {
                continue;
            };
            if executables.contains_key(&(shape, axis)) {
                continue;
            }
            let text = gather::build(devices, shape, axis)?.text();
            let executable = client
                .compile(&pjrt::Program { text: &text }, &options)
                .with_context(|| format!("cannot compile the program that gathers {shape}"))?;
            executables.insert((shape, axis), executable);
        }
        Ok(Self {
            executables,
            deadline,
        })
    }

    /// A tensor of `shape` that is split along `axis`, whole on this host's first
    /// device, from the parts on all of this host's devices. All hosts call it for the same tensors in the same
    /// order. Waits until it is there: one whole tensor at a time is all the
    /// memory that it takes.
    ///
    /// # Errors
    /// [`Late`] with `step` if the hosts have not met within the deadline, in
    /// which `excused` time does not count.
    pub fn whole(
        &self,
        shape: Shape,
        axis: usize,
        parts: Vec<&Buffer>,
        step: u64,
        excused: &mut dyn FnMut() -> bool,
    ) -> Result<Buffer> {
        let executable = self.executables.get(&(shape, axis));
        let executable = executable.context("a split tensor without its program")?;
        let rows = parts.into_iter().map(|part| vec![Arg::Borrow(part)]);
        let outputs = executable.execute(rows.collect())?;
        let are_done = || {
            outputs
                .done
                .iter()
                .map(Event::is_ready)
                .try_fold(true, |all, is| is.map(|is| all && is))
        };
        let turn = |pause| {
            let start = Instant::now();
            while start.elapsed() < pause {
                if are_done()? {
                    return Ok(Some(()));
                }
                std::thread::sleep(LOOK);
            }
            Ok(None)
        };
        if hosts::wait(self.deadline, excused, turn)?.is_none() {
            let program = "gather";
            return Err(Late { program, step }.into());
        }
        for done in &outputs.done {
            done.wait()?;
        }
        let first = outputs.buffers.into_iter().flatten().next();
        first.context("a program without results")
    }
}

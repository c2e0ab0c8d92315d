//! Compiled programs.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::buffer::{Buffer, Event};
use super::client::supported;
use super::error::{Error, Result};
use super::ffi::{self, CompiledMemory, Handle};

/// An argument of an execution.
pub enum Arg<'a> {
    /// The program may reuse the memory; the array is gone afterwards.
    Donate(Buffer),
    /// The array stays, even if the program would reuse its memory.
    Borrow(&'a Buffer),
}

impl Arg<'_> {
    fn buffer(&self) -> &Buffer {
        match self {
            Arg::Donate(buffer) => buffer,
            Arg::Borrow(buffer) => buffer,
        }
    }
}

/// What an execution gives. Outer order: devices, as in the arguments.
pub struct Outputs {
    /// For each device, its results in the program's order.
    pub buffers: Vec<Vec<Buffer>>,
    /// For each device, that it is done. Errors of the computation come out
    /// of these.
    pub done: Vec<Event>,
}

/// A compiled program, as it can be looked into without a device.
pub struct Compiled {
    handle: Handle<ffi::Executable>,
    num_outputs: usize,
}

impl Compiled {
    pub(super) fn new(handle: Handle<ffi::Executable>) -> Result<Self> {
        Ok(Compiled {
            num_outputs: handle.num_outputs()?,
            handle,
        })
    }

    /// Number of the program's results.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// Memory that it needs on each device; none where the plugin does not
    /// tell.
    pub fn memory_stats(&self) -> Result<Option<CompiledMemory>> {
        supported(self.handle.memory())
    }

    /// The compiler's estimates, such as `flops` and `bytes accessed`; none
    /// where the plugin has none.
    pub fn cost_analysis(&self) -> Result<Option<BTreeMap<String, f64>>> {
        supported(self.handle.cost_analysis())
    }

    /// Bytes for [`super::Client::deserialize`].
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.handle.serialize()
    }
}

/// A program compiled for devices of a client, which it can run on.
pub struct Executable {
    handle: Handle<ffi::LoadedExecutable>,
    compiled: Compiled,
    device_ids: Vec<i32>,
}

/// What can be asked of any [`Compiled`] program can be asked of this.
impl Deref for Executable {
    type Target = Compiled;

    fn deref(&self) -> &Compiled {
        &self.compiled
    }
}

impl Executable {
    pub(super) fn new(handle: Handle<ffi::LoadedExecutable>) -> Result<Self> {
        let compiled = Compiled::new(handle.executable()?)?;
        let devices = handle.devices()?;
        Ok(Executable {
            device_ids: devices.iter().map(|d| d.id()).collect::<Result<_>>()?,
            compiled,
            handle,
        })
    }

    /// The devices of this process that run it, in the order of
    /// [`Executable::execute`]'s rows.
    pub fn device_ids(&self) -> &[i32] {
        &self.device_ids
    }

    /// Enqueues one execution and returns without waiting for it. `arguments`
    /// has a row for each of [`Executable::device_ids`]: that device's shards,
    /// in the order of the program's parameters.
    ///
    /// A parameter must be donated on all devices or on none.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for rows of unequal length or another number than
    /// devices; the plugin's, such as a shard of the wrong shape. Errors of
    /// the computation itself come later, from [`Outputs::done`].
    pub fn execute(&self, arguments: Vec<Vec<Arg>>) -> Result<Outputs> {
        if arguments.len() != self.device_ids.len() {
            return Err(Error::Mismatch(format!(
                "the program runs on {} devices of this process, got arguments for {}",
                self.device_ids.len(),
                arguments.len()
            )));
        }
        let rows: Vec<Vec<_>> = arguments
            .iter()
            .map(|row| row.iter().map(|arg| &arg.buffer().0).collect())
            .collect();
        // One list serves all devices.
        let borrowed: Vec<i64> = (0..rows.first().map_or(0, Vec::len))
            .filter(|&i| {
                let is_borrowed = |row: &Vec<Arg>| matches!(row.get(i), Some(Arg::Borrow(_)));
                arguments.iter().any(is_borrowed)
            })
            .map(|i| i as i64)
            .collect();
        let run = self.handle.execute(&rows, &borrowed, self.num_outputs())?;
        // What was donated is dropped with `arguments`: the plugin holds on
        // to the memory for as long as it needs it.
        let wrap = |row: Vec<Handle<ffi::Buffer>>| row.into_iter().map(Buffer).collect();
        Ok(Outputs {
            buffers: run.outputs.into_iter().map(wrap).collect(),
            done: run.done.into_iter().map(Event).collect(),
        })
    }
}

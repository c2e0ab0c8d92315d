//! Calls on executables.

use std::collections::BTreeMap;

use super::super::error::{Error, Result};
use super::client::DeviceHandle;
use super::table::{self, Args, Ptr};
use super::value::{self, Value};
use super::{Buffer, Event, Executable, Handle, LoadedExecutable};

/// Memory that a compiled program needs on each device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct CompiledMemory {
    pub argument_bytes: u64,
    pub output_bytes: u64,
    /// Arguments whose memory an output takes over (donation).
    pub alias_bytes: u64,
    pub temp_bytes: u64,
    pub generated_code_bytes: u64,
    /// Highest use at any moment, where the plugin tells.
    pub peak_bytes: Option<u64>,
}

impl CompiledMemory {
    /// Held at once: arguments, results in no argument's place, temporaries,
    /// and the program itself.
    pub fn total(&self) -> u64 {
        let results = self.output_bytes.saturating_sub(self.alias_bytes);
        self.argument_bytes + results + self.temp_bytes + self.generated_code_bytes
    }
}

impl Handle<Executable> {
    pub fn num_outputs(&self) -> Result<usize> {
        let mut args = table::ExecutableNumOutputs::new();
        args.executable = self.ptr();
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.num_outputs)
    }

    pub fn memory(&self) -> Result<CompiledMemory> {
        let mut args = table::ExecutableGetCompiledMemoryStats::new();
        args.executable = self.ptr();
        // SAFETY: the executable is alive.
        unsafe { self.api.call(&mut args)? };
        let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(CompiledMemory {
            argument_bytes: bytes(args.argument_size_in_bytes),
            output_bytes: bytes(args.output_size_in_bytes),
            alias_bytes: bytes(args.alias_size_in_bytes),
            temp_bytes: bytes(args.temp_size_in_bytes),
            generated_code_bytes: bytes(args.generated_code_size_in_bytes),
            // Left at zero by plugins that do not know it.
            peak_bytes: Some(bytes(args.peak_memory_in_bytes)).filter(|&peak| peak > 0),
        })
    }

    /// The compiler's estimates by name, such as `flops`.
    pub fn cost_analysis(&self) -> Result<BTreeMap<String, f64>> {
        let mut args = table::ExecutableGetCostAnalysis::new();
        args.executable = self.ptr();
        // SAFETY: the properties live as the executable does.
        let properties = unsafe {
            self.api.call(&mut args)?;
            value::read_named(args.properties, args.num_properties)
        };
        Ok(properties
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::Float(value) => Some((name, f64::from(value))),
                Value::Int(value) => Some((name, value as f64)),
                _ => None,
            })
            .collect())
    }

    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut args = table::ExecutableSerialize::new();
        args.executable = self.ptr();
        // SAFETY: the bytes live until their deleter is called, once.
        unsafe {
            self.api.call(&mut args)?;
            let bytes = super::slice(args.serialized_bytes, args.serialized_bytes_size).to_vec();
            if let Some(delete) = args.serialized_executable_deleter {
                delete(args.serialized_executable);
            }
            Ok(bytes)
        }
    }
}

/// What one execution gives: for each device its output buffers, in the order
/// of the program's results, and the event that it is done.
pub struct Execution {
    pub outputs: Vec<Vec<Handle<Buffer>>>,
    pub done: Vec<Handle<Event>>,
}

impl Handle<LoadedExecutable> {
    /// The same program, for inspection.
    pub fn executable(&self) -> Result<Handle<Executable>> {
        let mut args = table::LoadedExecutableGetExecutable::new();
        args.loaded_executable = self.ptr();
        // SAFETY: the executable is alive; the result is ours to destroy.
        unsafe {
            self.api.call(&mut args)?;
            Handle::own(
                self.api,
                args.executable,
                self.client.as_ref(),
                table::LoadedExecutableGetExecutable::NAME,
            )
        }
    }

    /// The devices of this process that run it, in assignment order.
    pub fn devices(&self) -> Result<Vec<DeviceHandle>> {
        let Some(client) = &self.client else {
            return Ok(Vec::new());
        };
        let mut args = table::LoadedExecutableAddressableDevices::new();
        args.executable = self.ptr();
        // SAFETY: the list lives as the executable does.
        let devices = unsafe {
            self.api.call(&mut args)?;
            super::slice(args.devices, args.num_devices)
        };
        Ok(devices
            .iter()
            .map(|&d| DeviceHandle::new(client, d))
            .collect())
    }

    /// Enqueues the program on its devices. `arguments` has one row for each
    /// device; `not_donated` are the arguments that must survive even where
    /// the program would reuse their memory.
    pub fn execute(
        &self,
        arguments: &[Vec<&Handle<Buffer>>],
        not_donated: &[i64],
        num_outputs: usize,
    ) -> Result<Execution> {
        let num_args = arguments.first().map_or(0, Vec::len);
        if arguments.is_empty() || arguments.iter().any(|row| row.len() != num_args) {
            let lengths: Vec<usize> = arguments.iter().map(Vec::len).collect();
            return Err(Error::Mismatch(format!(
                "each device needs one row of arguments of the same length, got rows of {lengths:?}"
            )));
        }
        let argument_rows: Vec<Vec<Ptr>> = arguments
            .iter()
            .map(|row| row.iter().map(|buffer| buffer.ptr()).collect())
            .collect();
        let argument_lists: Vec<*const Ptr> = argument_rows.iter().map(|r| r.as_ptr()).collect();
        let num_devices = arguments.len();
        let mut output_rows = vec![vec![std::ptr::null_mut(); num_outputs]; num_devices];
        let output_lists: Vec<*mut Ptr> = output_rows.iter_mut().map(|r| r.as_mut_ptr()).collect();
        let mut events: Vec<Ptr> = vec![std::ptr::null_mut(); num_devices];

        // SAFETY: integers and raw pointers, for which zero is valid.
        let mut options: table::ExecuteOptions = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<table::ExecuteOptions>();
        options.non_donatable_input_indices = not_donated.as_ptr();
        options.num_non_donatable_input_indices = not_donated.len();
        let mut args = table::LoadedExecutableExecute::new();
        args.executable = self.ptr();
        args.options = &mut options;
        args.argument_lists = argument_lists.as_ptr();
        args.num_devices = num_devices;
        args.num_args = num_args;
        args.output_lists = output_lists.as_ptr();
        args.device_complete_events = events.as_mut_ptr();
        // SAFETY: rows and lists have the lengths given and live during the
        // call; every output row has room for the program's outputs; the
        // buffers are borrowed, so alive.
        unsafe { self.api.call(&mut args)? };

        let call = table::LoadedExecutableExecute::NAME;
        let client = self.client.as_ref();
        // SAFETY: outputs and events are ours from here on.
        let own_output = |object: Ptr| unsafe { Handle::own(self.api, object, client, call) };
        let own_event = |object: Ptr| unsafe { Handle::own(self.api, object, None, call) };
        Ok(Execution {
            outputs: output_rows
                .into_iter()
                .map(|row| row.into_iter().map(own_output).collect())
                .collect::<Result<_>>()?,
            done: events.into_iter().map(own_event).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_counts_no_result_twice() {
        let memory = CompiledMemory {
            argument_bytes: 100,
            output_bytes: 60,
            alias_bytes: 50,
            temp_bytes: 7,
            generated_code_bytes: 1,
            peak_bytes: None,
        };
        assert_eq!(memory.total(), 118);
    }
}

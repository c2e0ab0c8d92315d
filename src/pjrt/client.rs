//! A client: a plugin's devices, and what can be asked of them.

use std::sync::Arc;

use anyhow::Context;

use super::buffer::Buffer;
use super::error::Result;
use super::executable::Executable;
use super::ffi::{self, DeviceHandle, Handle, MemoryInUse, Value};
use super::gpu;
use super::plugin::Plugin;
use super::proto::CompileOptions;
use super::store::Store;
use crate::bad_input;
use crate::graph::DType;

/// A program in StableHLO text, one module with a public `main`.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    pub text: &'a str,
}

/// How to make a client.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// Devices wanted: on the CPU as many are made (1 by default); elsewhere
    /// so many must be there, of all processes.
    pub devices: Option<usize>,
    /// For plugins whose processes find each other through a store (GPUs). A
    /// TPU's know each other; a CPU's cannot talk.
    pub rendezvous: Option<Rendezvous>,
    /// Options by the plugin's own names, such as `memory_fraction`.
    pub extra: Vec<(String, Value)>,
}

/// One of several processes of a job.
#[derive(Clone)]
pub struct Rendezvous {
    pub process: usize,
    pub processes: usize,
    /// Shared by all of them.
    pub store: Arc<dyn Store>,
}

/// A connection to a plugin's devices.
pub struct Client {
    handle: Arc<Handle<ffi::Client>>,
    devices: Vec<Device>,
    platform: String,
    platform_version: String,
    process_index: i32,
    /// The process and the id of each device of the job, in this order.
    all: Vec<(i32, i64)>,
    processes: Vec<i32>,
    plugin: Arc<Plugin>,
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// [`crate::error::BadInput`] where fewer devices are there than wanted;
    /// the plugin's own error where it finds no device.
    pub fn new(plugin: &Arc<Plugin>, options: &ClientOptions) -> anyhow::Result<Arc<Client>> {
        let store = options.rendezvous.as_ref().map(|job| &job.store);
        let create = |options: &[(String, Value)]| {
            Handle::<ffi::Client>::create(plugin.api, options, store.cloned()).with_context(|| {
                let mut words = format!(
                    "the plugin {} finds no device to work on: is there one, with its driver \
                     loaded, and free? (--pjrt cpu needs none)",
                    plugin.path().display()
                );
                for wrong in gpu::what_is_wrong(plugin.path()) {
                    words += &format!("\n  {wrong}");
                }
                words
            })
        };
        let mut extra = options.extra.clone();
        if let Some(job) = &options.rendezvous {
            extra.push(("node_id".to_owned(), Value::Int(job.process as i64)));
            extra.push(("num_nodes".to_owned(), Value::Int(job.processes as i64)));
        }
        let mut handle = create(&extra)?;
        let platform = handle.platform_name()?;
        if platform == "cpu" {
            // CPU devices are as many as one asks for, and by default as many
            // as the plugin likes. That it is a CPU is known only from a
            // client, which is cheap there.
            drop(handle);
            let count = options.devices.unwrap_or(1) as i64;
            extra.push(("cpu_device_count".to_owned(), Value::Int(count)));
            handle = create(&extra)?;
        }
        let devices = handle
            .addressable_devices()?
            .into_iter()
            .map(Device::new)
            .collect::<Result<Vec<_>>>()?;
        let all = handle.all_devices()?;
        let all = all
            .iter()
            .map(|device| Ok((device.process_index()?, i64::from(device.id()?))));
        let mut all = all.collect::<Result<Vec<_>>>()?;
        all.sort_unstable();
        if let Some(wanted) = options.devices
            && all.len() < wanted
        {
            return Err(bad_input!(
                "{wanted} devices are wanted, but the {platform} plugin has {}: use --devices {}",
                all.len(),
                all.len()
            ));
        }
        Ok(Arc::new(Client {
            processes: all.iter().map(|(process, _)| *process).collect(),
            all,
            platform_version: handle.platform_version()?,
            process_index: handle.process_index()?,
            devices,
            platform,
            handle,
            plugin: Arc::clone(plugin),
        }))
    }

    /// The devices that this process drives, in the plugin's order.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Such as `cpu`, `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.platform
    }

    /// The plugin's own words for its build.
    pub fn platform_version(&self) -> &str {
        &self.platform_version
    }

    pub fn process_index(&self) -> i32 {
        self.process_index
    }

    /// The process of each device of the whole job, in the order of a program's
    /// shards: those of a process lie together.
    pub fn processes(&self) -> &[i32] {
        &self.processes
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Compiles a program for the job's devices, the first `num_partitions` of
    /// them; a process' lie together.
    ///
    /// # Errors
    /// The plugin's, which names the offending operation.
    pub fn compile(&self, program: &Program, options: &CompileOptions) -> Result<Executable> {
        Executable::new(self.handle.compile(program.text, &self.encode(options))?)
    }

    /// Options for this client's devices.
    pub(super) fn encode(&self, options: &CompileOptions) -> Vec<u8> {
        let ids = self.all.iter().map(|(_, id)| *id);
        let ids: Vec<i64> = ids.take(options.num_partitions).collect();
        options.encode(&ids)
    }

    /// Loads what [`Executable::serialize`] gave on an equal machine.
    pub fn deserialize(&self, bytes: &[u8]) -> Result<Executable> {
        Executable::new(self.handle.deserialize(bytes)?)
    }

    /// Copies a dense row-major array to a device. `bytes` is free again on
    /// return.
    ///
    /// # Errors
    /// [`super::Error::Mismatch`] if `bytes` is not as long as the array; the
    /// plugin's, such as when memory is short.
    pub fn buffer_from_host(
        &self,
        bytes: &[u8],
        element: DType,
        dims: &[usize],
        device: &Device,
    ) -> Result<Buffer> {
        self.handle
            .buffer_from_host(bytes, element, dims, &device.handle)
            .map(Buffer)
    }

    /// As [`Client::buffer_from_host`] without the copy during the call: the
    /// plugin reads `bytes` while the transfer runs and lets go of its share
    /// after, so that `Arc::try_unwrap` succeeds once the bytes can be reused.
    pub fn buffer_from_host_async(
        &self,
        bytes: Arc<Vec<u8>>,
        element: DType,
        dims: &[usize],
        device: &Device,
    ) -> Result<Buffer> {
        self.handle
            .buffer_from_host_async(bytes, element, dims, &device.handle)
            .map(Buffer)
    }
}

/// A device of a client.
pub struct Device {
    handle: DeviceHandle,
    id: i32,
    kind: String,
    process_index: i32,
}

impl Device {
    fn new(handle: DeviceHandle) -> Result<Self> {
        Ok(Device {
            id: handle.id()?,
            kind: handle.kind()?,
            process_index: handle.process_index()?,
            handle,
        })
    }

    /// Unique among all processes of a job.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The vendor's name, such as `TPU v5 lite`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The process that drives it.
    pub fn process_index(&self) -> i32 {
        self.process_index
    }

    /// Memory in use; none where the plugin does not tell.
    pub fn memory_in_use(&self) -> Result<Option<MemoryInUse>> {
        supported(self.handle.memory_in_use())
    }
}

/// Turns "not implemented" into none.
pub(super) fn supported<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

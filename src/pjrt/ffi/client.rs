//! Calls on clients and devices.

use std::ffi::c_char;
use std::sync::Arc;

use super::super::element::{code, dense_bytes};
use super::super::error::{Error, Result};
use super::super::store::Store;
use super::key_value;
use super::table::{self, Args, Ptr};
use super::value::{self, Value};
use super::{Api, Buffer, Client, Event, Handle, LoadedExecutable};
use crate::graph::DType;

/// The runtime copies the bytes before the call returns.
const IMMUTABLE_ONLY_DURING_CALL: u32 = 0;
/// The runtime reads the bytes until its event says that it is done.
const IMMUTABLE_UNTIL_TRANSFER_COMPLETES: u32 = 1;

impl Handle<Client> {
    /// A client of one process, or with a store, of one of several.
    pub fn create(
        api: Api,
        options: &[(String, Value)],
        store: Option<Arc<dyn Store>>,
    ) -> Result<Arc<Self>> {
        let named = value::named(options);
        let mut args = table::ClientCreate::new();
        args.create_options = named.as_ptr();
        args.num_options = named.len();
        if let Some(store) = store {
            let store = key_value::UserArg::leak(store);
            args.kv_get_callback = key_value::get_callback();
            args.kv_get_user_arg = store.as_ptr();
            args.kv_try_get_callback = key_value::try_get_callback();
            args.kv_try_get_user_arg = store.as_ptr();
            args.kv_put_callback = key_value::put_callback();
            args.kv_put_user_arg = store.as_ptr();
        }
        // SAFETY: the options live during the call, the store for ever.
        let client = unsafe {
            api.call(&mut args)?;
            Handle::own(api, args.client, None, table::ClientCreate::NAME)?
        };
        Ok(Arc::new(client))
    }

    pub fn platform_name(&self) -> Result<String> {
        let mut args = table::ClientPlatformName::new();
        args.client = self.ptr();
        // SAFETY: the client is alive, and its text with it.
        unsafe {
            self.api.call(&mut args)?;
            Ok(super::text(args.text, args.text_size))
        }
    }

    pub fn platform_version(&self) -> Result<String> {
        let mut args = table::ClientPlatformVersion::new();
        args.client = self.ptr();
        // SAFETY: as in `platform_name`.
        unsafe {
            self.api.call(&mut args)?;
            Ok(super::text(args.text, args.text_size))
        }
    }

    pub fn process_index(&self) -> Result<i32> {
        let mut args = table::ClientProcessIndex::new();
        args.client = self.ptr();
        // SAFETY: the client is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.process_index)
    }

    /// The devices of all processes.
    pub fn all_devices(self: &Arc<Self>) -> Result<Vec<DeviceHandle>> {
        let mut args = table::ClientDevices::new();
        args.client = self.ptr();
        // SAFETY: the client is alive, and its list with it.
        let devices = unsafe {
            self.api.call(&mut args)?;
            super::slice(args.devices, args.num_devices)
        };
        Ok(devices
            .iter()
            .map(|&d| DeviceHandle::new(self, d))
            .collect())
    }

    pub fn addressable_devices(self: &Arc<Self>) -> Result<Vec<DeviceHandle>> {
        let mut args = table::ClientAddressableDevices::new();
        args.client = self.ptr();
        // SAFETY: the client is alive, and its list with it.
        let devices = unsafe {
            self.api.call(&mut args)?;
            super::slice(args.devices, args.num_devices)
        };
        Ok(devices
            .iter()
            .map(|&d| DeviceHandle::new(self, d))
            .collect())
    }

    /// Compiles StableHLO text; `options` is a serialised `CompileOptionsProto`.
    pub fn compile(
        self: &Arc<Self>,
        text: &str,
        options: &[u8],
    ) -> Result<Handle<LoadedExecutable>> {
        let program = program(text);
        let mut args = table::ClientCompile::new();
        args.client = self.ptr();
        args.program = &program;
        args.compile_options = options.as_ptr();
        args.compile_options_size = options.len();
        // SAFETY: program and options live during the call.
        unsafe {
            self.api.call(&mut args)?;
            Handle::own(
                self.api,
                args.executable,
                Some(self),
                table::ClientCompile::NAME,
            )
        }
    }

    /// Loads what `Handle<Executable>::serialize` gave.
    pub fn deserialize(self: &Arc<Self>, bytes: &[u8]) -> Result<Handle<LoadedExecutable>> {
        let mut args = table::ExecutableDeserializeAndLoad::new();
        args.client = self.ptr();
        args.serialized_executable = bytes.as_ptr();
        args.serialized_executable_size = bytes.len();
        // SAFETY: the bytes live during the call.
        unsafe {
            self.api.call(&mut args)?;
            Handle::own(
                self.api,
                args.loaded_executable,
                Some(self),
                table::ExecutableDeserializeAndLoad::NAME,
            )
        }
    }

    /// Copies a dense row-major array to a device; `bytes` is free again when
    /// this returns.
    pub fn buffer_from_host(
        self: &Arc<Self>,
        bytes: &[u8],
        element: DType,
        dims: &[usize],
        device: &DeviceHandle,
    ) -> Result<Handle<Buffer>> {
        let (buffer, done) =
            self.transfer(bytes, element, dims, device, IMMUTABLE_ONLY_DURING_CALL)?;
        drop(done);
        Ok(buffer)
    }

    /// As `buffer_from_host`, but returns at once; the plugin reads `bytes`
    /// while the transfer runs, and its share in them is dropped after that.
    pub fn buffer_from_host_async(
        self: &Arc<Self>,
        bytes: Arc<Vec<u8>>,
        element: DType,
        dims: &[usize],
        device: &DeviceHandle,
    ) -> Result<Handle<Buffer>> {
        let (buffer, done) = self.transfer(
            &bytes,
            element,
            dims,
            device,
            IMMUTABLE_UNTIL_TRANSFER_COMPLETES,
        )?;
        if let Some(done) = done {
            done.keep_until_ready(bytes);
        }
        Ok(buffer)
    }

    fn transfer(
        self: &Arc<Self>,
        bytes: &[u8],
        element: DType,
        dims: &[usize],
        device: &DeviceHandle,
        semantics: u32,
    ) -> Result<(Handle<Buffer>, Option<Handle<Event>>)> {
        if dense_bytes(element, dims) != Some(bytes.len()) {
            return Err(Error::Mismatch(format!(
                "an array of {element:?} {dims:?} does not take {} bytes",
                bytes.len()
            )));
        }
        if !Arc::ptr_eq(self, &device.client) {
            return Err(Error::Mismatch(format!(
                "device {:?} belongs to another client",
                device.id()
            )));
        }
        let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let mut args = table::ClientBufferFromHostBuffer::new();
        args.client = self.ptr();
        args.data = bytes.as_ptr().cast();
        args.element_type = code(element);
        args.dims = dims.as_ptr();
        args.num_dims = dims.len();
        args.host_buffer_semantics = semantics;
        args.device = device.device;
        // SAFETY: `bytes` has the array's length and lives during the call;
        // after it, where the semantics need that, by the caller's doing.
        unsafe {
            self.api.call(&mut args)?;
            let call = table::ClientBufferFromHostBuffer::NAME;
            let done = Handle::own(self.api, args.done_with_host_buffer, None, call).ok();
            Ok((Handle::own(self.api, args.buffer, Some(self), call)?, done))
        }
    }
}

/// The C form of a program in StableHLO text, which it points to.
pub(super) fn program(text: &str) -> table::Program {
    const FORMAT: &str = "mlir";
    table::Program {
        struct_size: size_of::<table::Program>(),
        extension_start: std::ptr::null_mut(),
        code: text.as_ptr(),
        code_size: text.len(),
        format: FORMAT.as_ptr(),
        format_size: FORMAT.len(),
        future: [0; table::FUTURE],
    }
}

/// A device of a client, which owns it.
pub struct DeviceHandle {
    device: Ptr,
    client: Arc<Handle<Client>>,
}

// SAFETY: as of `Handle`; devices do not change.
unsafe impl Send for DeviceHandle {}
// SAFETY: as above.
unsafe impl Sync for DeviceHandle {}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInUse {
    pub in_use: u64,
    pub peak: Option<u64>,
    pub limit: Option<u64>,
}

impl DeviceHandle {
    pub(super) fn new(client: &Arc<Handle<Client>>, device: Ptr) -> Self {
        DeviceHandle {
            device,
            client: Arc::clone(client),
        }
    }

    fn description(&self) -> Result<Ptr> {
        let mut args = table::DeviceGetDescription::new();
        args.device = self.device;
        // SAFETY: the device is alive as its client is.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.device_description)
    }

    pub fn id(&self) -> Result<i32> {
        // SAFETY: a description of a living device.
        unsafe { description_id(self.client.api, self.description()?) }
    }

    pub fn process_index(&self) -> Result<i32> {
        let mut args = table::DeviceDescriptionProcessIndex::new();
        args.device_description = self.description()?;
        // SAFETY: a description of a living device.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.process_index)
    }

    pub fn kind(&self) -> Result<String> {
        // SAFETY: a description of a living device.
        unsafe { description_kind(self.client.api, self.description()?) }
    }

    pub fn memory_in_use(&self) -> Result<MemoryInUse> {
        let mut args = table::DeviceMemoryStats::new();
        args.device = self.device;
        // SAFETY: the device is alive as its client is.
        unsafe { self.client.api.call(&mut args)? };
        let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(MemoryInUse {
            in_use: bytes(args.bytes_in_use),
            peak: args.peak_bytes_in_use.get().map(bytes),
            limit: args.bytes_limit.get().map(bytes),
        })
    }
}

/// # Safety
/// `description` is a device description whose owner is alive.
pub(super) unsafe fn description_id(api: Api, description: Ptr) -> Result<i32> {
    let mut args = table::DeviceDescriptionId::new();
    args.device_description = description;
    // SAFETY: promised by the caller.
    unsafe { api.call(&mut args)? };
    Ok(args.id)
}

/// # Safety
/// `description` is a device description whose owner is alive.
pub(super) unsafe fn description_kind(api: Api, description: Ptr) -> Result<String> {
    let mut args = table::DeviceDescriptionKind::new();
    args.device_description = description;
    // SAFETY: promised by the caller; the text lives as the description does.
    unsafe {
        api.call(&mut args)?;
        Ok(super::text(args.text as *const c_char, args.text_size))
    }
}

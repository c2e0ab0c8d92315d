//! Devices that need not be there: compiling for a machine that one has not.

use std::sync::Arc;

use super::client::Program;
use super::error::Result;
use super::executable::Compiled;
use super::ffi::{self, Handle, Value};
use super::plugin::Plugin;
use super::proto::CompileOptions;

/// A set of devices and how they are connected.
pub struct Topology {
    handle: Handle<ffi::Topology>,
    platform: String,
    devices: Vec<(i32, String)>,
}

impl Topology {
    /// Asks a plugin for a topology: by a name of its own, such as
    /// `v3:8x16` (chips) of libtpu, or by options. For libtpu see
    /// [`super::tpu_deviceless_env`].
    pub fn new(
        plugin: &Arc<Plugin>,
        name: Option<&str>,
        options: &[(String, Value)],
    ) -> Result<Topology> {
        let handle = Handle::<ffi::Topology>::create(plugin.api, name, options)?;
        Ok(Topology {
            platform: handle.platform_name()?,
            devices: handle.devices()?,
            handle,
        })
    }

    pub fn platform_name(&self) -> &str {
        &self.platform
    }

    /// (id, kind) of each device.
    pub fn devices(&self) -> &[(i32, String)] {
        &self.devices
    }

    /// Compiles a program for it.
    ///
    /// # Errors
    /// The plugin's; with code [`super::Code::RESOURCE_EXHAUSTED`] where the
    /// program does not fit into the devices' memory.
    pub fn compile(&self, program: &Program, options: &CompileOptions) -> Result<Compiled> {
        Compiled::new(self.handle.compile(program.text, &options.encode(&[]))?)
    }
}

//! Calls on topologies: devices that need not be there.

use super::super::error::Result;
use super::client::{description_id, description_kind, program};
use super::table::{self, Args};
use super::value::{self, Value};
use super::{Api, Executable, Handle, Topology};

impl Handle<Topology> {
    pub fn create(api: Api, name: Option<&str>, options: &[(String, Value)]) -> Result<Self> {
        let named = value::named(options);
        let mut args = table::TopologyCreate::new();
        if let Some(name) = name {
            args.topology_name = name.as_ptr();
            args.topology_name_size = name.len();
        }
        args.create_options = named.as_ptr();
        args.num_options = named.len();
        // SAFETY: name and options live during the call.
        unsafe {
            api.call(&mut args)?;
            Handle::own(api, args.topology, None, table::TopologyCreate::NAME)
        }
    }

    pub fn platform_name(&self) -> Result<String> {
        let mut args = table::TopologyPlatformName::new();
        args.topology = self.ptr();
        // SAFETY: the text lives as the topology does.
        unsafe {
            self.api.call(&mut args)?;
            Ok(super::text(args.text, args.text_size))
        }
    }

    /// (id, kind) of each device.
    pub fn devices(&self) -> Result<Vec<(i32, String)>> {
        let mut args = table::TopologyDeviceDescriptions::new();
        args.topology = self.ptr();
        // SAFETY: the descriptions live as the topology does.
        unsafe {
            self.api.call(&mut args)?;
            super::slice(args.descriptions, args.num_descriptions)
                .iter()
                .map(|&d| Ok((description_id(self.api, d)?, description_kind(self.api, d)?)))
                .collect()
        }
    }

    /// Compiles StableHLO text; `options` is a serialised `CompileOptionsProto`.
    pub fn compile(&self, text: &str, options: &[u8]) -> Result<Handle<Executable>> {
        let program = program(text);
        let mut args = table::Compile::new();
        args.topology = self.ptr();
        args.program = &program;
        args.compile_options = options.as_ptr();
        args.compile_options_size = options.len();
        // SAFETY: program and options live during the call; no client is
        // given, since none need exist.
        unsafe {
            self.api.call(&mut args)?;
            Handle::own(self.api, args.executable, None, table::Compile::NAME)
        }
    }
}

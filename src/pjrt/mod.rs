//! The runtime: PJRT plugins through their C API.
//!
//! It knows programs as StableHLO text and arrays as bytes, and nothing of
//! what they mean. From a name to a result:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use xla_moco::graph::DType;
//! use xla_moco::pjrt::*;
//! let plugin = install::load("cpu", &install::ResolveOptions::default())?;
//! let client = Client::new(&plugin, &ClientOptions::default())?;
//! let text = r#"module { func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
//!     %y = stablehlo.add %x, %x : tensor<2xf32>
//!     return %y : tensor<2xf32> } }"#;
//! let program = client.compile(&Program { text }, &CompileOptions::default())?;
//! let bytes: Vec<u8> = [1f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let x = client.buffer_from_host(&bytes, DType::F32, &[2], &client.devices()[0])?;
//! let run = program.execute(vec![vec![Arg::Donate(x)]])?;
//! println!("{:?}", run.buffers[0][0].to_host()?);
//! # Ok(())
//! # }
//! ```
//!
//! Everything that calls into a plugin stands in `ffi`. Execution and
//! transfers are asynchronous; their errors come out of [`Event::wait`] and of
//! reading a buffer.

mod buffer;
mod cache;
mod client;
mod element;
mod error;
mod executable;
mod ffi;
pub mod gpu;
mod hlo;
pub mod install;
mod plugin;
mod proto;
pub mod store;
mod topology;

pub use buffer::{Buffer, Event, Pending};
pub use cache::{CompileCache, Origin};
pub use client::{Client, ClientOptions, Device, Program, Rendezvous};
pub use error::{Code, Error, Result};
pub use executable::{Arg, Compiled, Executable, Outputs};
pub use ffi::environment::{
    TPU_DEVICELESS_ENV, pin_threads, pinned_threads, quiet_plugin_logs, tpu_deviceless_env,
    tpu_is_present,
};
pub use ffi::{CompiledMemory, MemoryInUse, Value};
pub use hlo::{HloText, export_hlo};
pub use plugin::Plugin;
pub use proto::{CompileOptions, OptionValue};
pub use topology::Topology;

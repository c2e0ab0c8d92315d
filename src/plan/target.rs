//! Devices that a program is compiled for: `tpu:v3:8x16`, `gpu:h100:8`,
//! `cpu:4`. None but the CPU's need be there.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::hardware::{GPUS, Gpu, Hardware, TPUS, cpu};
use crate::bad_input;
use crate::pjrt::install::{self, Need, ResolveOptions};
use crate::pjrt::{
    self, Client, ClientOptions, CompileOptions, Compiled, CompiledMemory, Plugin, Program,
    Topology, Value,
};

/// More than any machine has.
const MOST_DEVICES: usize = 1 << 16;

/// What the user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topology by libtpu's name, such as `v3:8x16` (chips).
    Tpu(String),
    /// GPUs of one machine: their name, and how many.
    Gpu(&'static str, usize),
    /// Devices that share this machine's processor.
    Cpu(usize),
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    /// # Errors
    /// [`bad_input!`] that lists the targets there are.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = |why: &str| bad_input!("the target {text:?} {why}\n{}", known());
        let count = |digits: &str| match digits.parse() {
            Ok(n @ 1..=MOST_DEVICES) => Ok(n),
            _ => Err(unknown(&format!(
                "says {digits:?} where the number of devices belongs, 1 to {MOST_DEVICES}"
            ))),
        };
        match text.split_once(':') {
            Some(("tpu", name)) => {
                let (generation, shape) = name
                    .split_once(':')
                    .ok_or_else(|| unknown("lacks the chips' arrangement, such as 2x2"))?;
                let sizes = shape.split('x').map(|n| n.parse::<u16>());
                if !sizes.clone().all(|n| n.is_ok_and(|n| n > 0))
                    || !(2..=3).contains(&sizes.count())
                {
                    return Err(unknown(&format!(
                        "arranges its chips as {shape:?}; expected such as 2x2 or 2x2x1"
                    )));
                }
                if !TPUS.iter().any(|(name, _)| *name == generation) {
                    return Err(unknown(&format!(
                        "is of a TPU {generation} that is not known"
                    )));
                }
                Ok(Self::Tpu(name.to_owned()))
            }
            Some(("gpu", name)) => {
                let (name, devices) = name
                    .split_once(':')
                    .ok_or_else(|| unknown("lacks the number of GPUs"))?;
                let gpu = GPUS.iter().find(|gpu| gpu.name == name);
                let gpu = gpu.ok_or_else(|| unknown("is of a GPU that is not known"))?;
                Ok(Self::Gpu(gpu.name, count(devices)?))
            }
            Some(("cpu", devices)) => Ok(Self::Cpu(count(devices)?)),
            _ => Err(unknown("is none that is known")),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tpu(name) => write!(f, "tpu:{name}"),
            Self::Gpu(name, devices) => write!(f, "gpu:{name}:{devices}"),
            Self::Cpu(devices) => write!(f, "cpu:{devices}"),
        }
    }
}

/// The targets there are, for people.
fn known() -> String {
    let tpus: Vec<&str> = TPUS.iter().map(|(name, _)| *name).collect();
    let gpus: Vec<&str> = GPUS.iter().map(|gpu| gpu.name).collect();
    format!(
        "known targets:\n  \
         tpu:GENERATION:CHIPS  {}; chips as v3:2x2, v3:8x16 (256 devices), v3:16x16 (512), \
         v4:2x2x1, v4:4x4x4 (128), v5e:16x16, v6e:16x16: whatever libtpu knows\n  \
         gpu:NAME:N            {}; N of them in one machine\n  \
         cpu:N                 N devices that share this machine's processor",
        tpus.join(", "),
        gpus.join(", ")
    )
}

/// A target whose compiler is loaded.
pub struct Machine {
    compiler: Compiler,
    pub target: Target,
    /// The platform's name in PJRT: `cpu`, `cuda`, `tpu`.
    pub platform: String,
    pub devices: usize,
    /// The maker's name of a device.
    pub device_kind: String,
    pub hardware: Hardware,
    /// The compiler's version, as the plugin tells it.
    pub plugin: Arc<Plugin>,
}

enum Compiler {
    Client(Arc<Client>),
    Topology(Topology),
}

impl Machine {
    /// Loads the target's plugin and asks it for the devices. For a TPU call
    /// [`pjrt::tpu_deviceless_env`] first.
    ///
    /// # Errors
    /// [`bad_input!`] for a plugin that cannot be had and for a topology that
    /// it does not know.
    pub fn new(target: &Target) -> Result<Self> {
        match target {
            Target::Tpu(name) => {
                let plugin = install::load("tpu", &ResolveOptions::default())?;
                let topology = Topology::new(&plugin, Some(name), &[]).map_err(|error| {
                    bad_input!("libtpu knows no topology {name}: {error}\n{}", known())
                })?;
                let generation = name.split(':').next();
                let found = TPUS.iter().find(|(name, _)| Some(*name) == generation);
                let (_, hardware) = found.context("a generation without data sheet")?;
                Self::of_topology(target, topology, *hardware, plugin)
            }
            Target::Gpu(name, devices) => {
                let found = GPUS.iter().find(|gpu| gpu.name == *name);
                let gpu: &Gpu = found.context("a GPU without description")?;
                let options = ResolveOptions {
                    need: Need::Compile,
                    ..ResolveOptions::default()
                };
                let plugin = install::load("gpu", &options)?;
                check_ptxas(&plugin)?;
                let options = [
                    // Partitions of the network, machines in each, GPUs of each.
                    ("topology".to_owned(), Value::Text(format!("1x1x{devices}"))),
                    ("target_config".to_owned(), Value::Text(gpu.target_config())),
                ];
                let topology = Topology::new(&plugin, None, &options)
                    .with_context(|| format!("the GPU plugin does not take {target}"))?;
                Self::of_topology(target, topology, gpu.hardware, plugin)
            }
            Target::Cpu(devices) => {
                let plugin = install::load("cpu", &ResolveOptions::default())?;
                let options = ClientOptions {
                    devices: Some(*devices),
                    ..ClientOptions::default()
                };
                let client = Client::new(&plugin, &options)?;
                let device = client
                    .devices()
                    .first()
                    .context("a client without devices")?;
                Ok(Self {
                    target: target.clone(),
                    platform: client.platform_name().to_owned(),
                    devices: *devices,
                    device_kind: device.kind().to_owned(),
                    hardware: cpu(*devices, pjrt::pinned_threads(), memory_of_this_machine()),
                    compiler: Compiler::Client(client),
                    plugin,
                })
            }
        }
    }

    fn of_topology(
        target: &Target,
        topology: Topology,
        hardware: Hardware,
        plugin: Arc<Plugin>,
    ) -> Result<Self> {
        let devices = topology.devices();
        let (_, kind) = devices.first().context("a topology without devices")?;
        Ok(Self {
            target: target.clone(),
            platform: topology.platform_name().to_owned(),
            devices: devices.len(),
            device_kind: kind.clone(),
            hardware,
            compiler: Compiler::Topology(topology),
            plugin,
        })
    }

    /// Memory that a program may take; 0: not known. A GPU plugin keeps a
    /// quarter of the device's for others unless it is told otherwise.
    pub(super) fn usable_memory(&self, gpu_fraction: Option<f64>) -> u64 {
        match self.target {
            Target::Gpu(..) => (self.hardware.memory as f64 * gpu_fraction.unwrap_or(0.75)) as u64,
            Target::Tpu(_) | Target::Cpu(_) => self.hardware.memory,
        }
    }

    /// Compiles StableHLO for all devices.
    pub(super) fn compile(&self, text: &str, options: &CompileOptions) -> pjrt::Result<Told> {
        let program = Program { text };
        match &self.compiler {
            Compiler::Client(client) => {
                let executable = client.compile(&program, options)?;
                told(&executable)
            }
            Compiler::Topology(topology) => told(&topology.compile(&program, options)?),
        }
    }
}

/// Without NVIDIA's assembler the compiler fails late, or with the process.
fn check_ptxas(plugin: &Plugin) -> Result<()> {
    match pjrt::gpu::Toolkit::of(plugin.path()) {
        Some(toolkit) if toolkit.ptxas().is_none() => Err(bad_input!(
            "there is no ptxas, without which {} compiles nothing: neither beside it, nor on the \
             PATH, nor in /usr/local/cuda/bin. `xla-moco plugins install gpu --compile-only` \
             fetches a plugin that has it",
            plugin.path().display()
        )),
        _ => Ok(()),
    }
}

/// What a compiler tells of a program that it compiled.
pub(super) struct Told {
    pub memory: Option<CompiledMemory>,
    /// By the compiler's names.
    pub costs: Option<std::collections::BTreeMap<String, f64>>,
}

fn told(compiled: &Compiled) -> pjrt::Result<Told> {
    Ok(Told {
        memory: compiled.memory_stats()?,
        costs: compiled.cost_analysis()?,
    })
}

/// Bytes; 0 where the system does not tell, which then counts as unbounded.
fn memory_of_this_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, expected) in [
            ("tpu:v3:8x16", Target::Tpu("v3:8x16".into())),
            ("tpu:v4:2x2x1", Target::Tpu("v4:2x2x1".into())),
            ("gpu:h100:8", Target::Gpu("h100", 8)),
            ("cpu:4", Target::Cpu(4)),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target, expected);
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn unknown_targets_are_refused_with_those_known() {
        for text in [
            "",
            "tpu",
            "tpu:v3",
            "tpu:v9:2x2",
            "tpu:v3:2",
            "tpu:v3:2x0",
            "tpu:v3:2x2x2x2",
            "gpu:8",
            "gpu:h100",
            "gpu:h100:0",
            "gpu:voodoo:2",
            "cpu:",
            "cpu:99999999",
            "npu:4",
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.is::<crate::error::BadInput>(), "{text}");
            let error = error.to_string();
            for known in ["v5e", "h100", "cpu:N", &format!("{text:?}")] {
                assert!(error.contains(known), "{text}: {error}");
            }
        }
    }
}

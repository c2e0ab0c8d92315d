//! From a plugin's name to a train step that is compiled for its devices.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Error, Result};
use sha2::{Digest, Sha256};

use super::hosts::Hosts;
use super::memory::{Footprint, with_advice};
use crate::bad_input;
use crate::config::{Gpu, Model, RunConfig, word};
use crate::graph::block::Lowering;
use crate::hash::hex;
use crate::models;
use crate::pjrt::install::{self, ResolveOptions};
use crate::pjrt::{
    self, Client, ClientOptions, Code, CompileCache, CompileOptions, Device, Executable, Origin,
    Plugin, Value,
};
use crate::plan;
use crate::programs::train_step::{self, TrainStep};
use crate::programs::{self, Program};

/// The devices that a plugin has, on all hosts. The client that is asked is
/// gone on return.
///
/// # Errors
/// [`bad_input!`] for a CPU, which has as many as one asks for.
pub fn all_devices(pjrt: &str) -> Result<usize> {
    // Only looked at: another program may hold most of the memory.
    let gpu = Gpu {
        preallocate: Some(false),
        ..Gpu::default()
    };
    let client = client(pjrt, &gpu)?;
    match client.platform_name() {
        "cpu" => Err(bad_input!(
            "--devices all: a CPU has as many devices as one asks for; give their number"
        )),
        _ => Ok(client.processes().len()),
    }
}

fn load(pjrt: &str) -> Result<Arc<Plugin>> {
    if pjrt == "tpu" && !pjrt::tpu_is_present() {
        return Err(bad_input!(
            "--pjrt tpu: this machine has no TPU to train on; use --pjrt cpu here, or run the \
             same command on a TPU machine"
        ));
    }
    install::load(pjrt, &ResolveOptions::default())
}

/// A client with all devices that there are, for what needs no mesh.
///
/// # Errors
/// Those of the plugin.
pub fn client(pjrt: &str, gpu: &Gpu) -> Result<Arc<Client>> {
    let plugin = load(pjrt)?;
    let options = ClientOptions {
        extra: gpu_options(gpu, &plugin),
        ..ClientOptions::default()
    };
    Client::new(&plugin, &options)
}

/// A client with the devices that a run wants.
pub fn connect(pjrt: &str, config: &RunConfig, hosts: Option<&Hosts>) -> Result<Arc<Client>> {
    let plugin = load(pjrt)?;
    let options = ClientOptions {
        devices: Some(config.mesh.data),
        rendezvous: hosts.and_then(Hosts::rendezvous),
        extra: gpu_options(&config.gpu, &plugin),
    };
    Client::new(&plugin, &options)
}

/// The options of a client that a configuration gives a GPU's plugin.
fn gpu_options(gpu: &Gpu, plugin: &Plugin) -> Vec<(String, Value)> {
    let fraction = gpu.memory_fraction.map(|share| Value::Float(share as f32));
    let allocator = gpu.allocator.map(|kind| Value::Text(word(&kind)));
    let given = [
        ("memory_fraction", fraction),
        ("preallocate", gpu.preallocate.map(Value::Bool)),
        ("allocator", allocator),
    ];
    let given = given.into_iter();
    let given: Vec<_> = given
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    if given.is_empty() || pjrt::gpu::is_of_gpus(plugin.path()) {
        return given;
    }
    tracing::info!(
        "`gpu` of the configuration is for GPUs: {} takes no notice",
        plugin.path().display()
    );
    Vec::new()
}

/// What the train step is compiled with for a client's devices. `autotune` is
/// the folder in which a GPU's compiler keeps which kernels were fastest.
pub fn step_options(config: &RunConfig, client: &Client, autotune: &Path) -> CompileOptions {
    // What one version measured is nothing to another.
    let plugin = client.plugin().path().display().to_string();
    let version = Sha256::digest(format!("{plugin} {}", client.platform_version()));
    let folder = autotune.join(&hex(&version)[..12]);
    plan::step_options(config, client.platform_name(), Some(&folder))
}

/// Where a GPU's compiler keeps what it measured: with the run where that must
/// give the same bits again, else for all runs.
pub fn autotune_folder(config: &RunConfig, run: Option<&Path>) -> Result<PathBuf> {
    let folder = match run.filter(|_| config.deterministic) {
        Some(run) => std::path::absolute(run)?,
        None => install::cache_folder()?,
    };
    Ok(folder.join("autotune"))
}

/// A train step that can run.
pub struct CompiledStep {
    pub program: Program,
    /// Of the program.
    pub text: String,
    pub executable: Executable,
    pub lowering: Lowering,
}

impl CompiledStep {
    /// Its memory, and the client's. Not all compilers refuse what does not
    /// fit.
    pub fn footprint(&self, client: &Client) -> Result<Footprint> {
        let device = client.devices().first();
        let memory = device.map(Device::memory_in_use).transpose()?.flatten();
        Ok(Footprint {
            needs: self.executable.memory_stats()?.map(|memory| memory.total()),
            limit: memory.and_then(|memory| memory.limit),
            ..Footprint::unknown(client, self.lowering)
        })
    }
}

/// Told of each compilation: its result, its seconds, and where it came from.
pub type Told<'a> = dyn FnMut(&Executable, f64, Origin) -> Result<()> + 'a;

/// Builds and compiles the train step. Where the configuration leaves the
/// lowering open: the one that `plan` found best on this machine, if
/// `recommend`; else the first one that fits.
///
/// # Errors
/// The compiler's.
pub fn compile_step(
    client: &Client,
    step: &TrainStep,
    options: &CompileOptions,
    cache: Option<&CompileCache>,
    recommend: bool,
    told: &mut Told,
) -> Result<CompiledStep> {
    plan::check_platform(step.config, client.platform_name())?;
    let mut compile = |lowering| {
        let program = train_step::build(&TrainStep { lowering, ..*step })?;
        let text = program.text();
        let start = Instant::now();
        let (executable, origin) = client
            .compile_cached(&pjrt::Program { text: &text }, options, cache)
            .map_err(|error| {
                let error = Error::new(error).context("cannot compile the train step");
                with_advice(error, step.config, &Footprint::unknown(client, lowering))
            })?;
        told(&executable, start.elapsed().as_secs_f64(), origin)?;
        anyhow::Ok(CompiledStep {
            program,
            text,
            executable,
            lowering,
        })
    };
    if let Some(lowering) = programs::lowering(step.config) {
        return compile(lowering);
    }
    let kind = client.devices().first().map_or("", |device| device.kind());
    let first = match recommend {
        true => plan::recommended(step, kind)?,
        false => None,
    };
    let first = first.unwrap_or(Lowering::Unrolled);
    let fits = |compiled: &CompiledStep| {
        let footprint = compiled.footprint(client)?;
        Ok(match (footprint.needs, footprint.limit) {
            (Some(needs), Some(limit)) => needs <= limit,
            _ => true,
        })
    };
    first_that_fits(&step.config.model, first, compile, fits)
}

/// Compiles with the lowering `first`, or with the first of those after it that
/// the compiler does not refuse for want of memory.
fn first_that_fits<T>(
    model: &Model,
    first: Lowering,
    mut compile: impl FnMut(Lowering) -> Result<T>,
    fits: impl Fn(&T) -> Result<bool>,
) -> Result<T> {
    let mut lighter = models::lighter(model, first);
    let mut lowering = first;
    loop {
        let compiled = compile(lowering);
        let no_memory = match &compiled {
            Ok(compiled) => !fits(compiled)?,
            Err(error) => {
                let refusal = error.downcast_ref::<pjrt::Error>();
                refusal.is_some_and(|e| e.code() == Some(Code::RESOURCE_EXHAUSTED))
            }
        };
        match lighter.next().filter(|_| no_memory) {
            // The last resort is tried though it seems not to fit.
            None => return compiled,
            Some(next) => {
                tracing::warn!(
                    "lowering={} does not fit into the device's memory; trying {}",
                    lowering.name(),
                    next.name()
                );
                lowering = next;
            }
        }
    }
}

//! All that is there before the first step: plugin, client, program,
//! compilation, state.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Options;
use super::continue_from::{self, Start};
use super::devices::Devices;
use super::folder::Folder;
use super::gather::Gather;
use super::held_out::{HeldOut, Measure};
use super::hosts::{self, Exchange, Hosts, Stance, agree};
use super::origin;
use super::pictures::Pictures;
use super::records::Records;
use super::state::{self, DeviceState};
use crate::bad_input;
use crate::checkpoint::Origin;
use crate::config::{Model, RunConfig};
use crate::graph::block::Lowering;
use crate::models;
use crate::pjrt::install::{self, ResolveOptions};
use crate::pjrt::{
    self, Arg, Buffer, Client, ClientOptions, Code, CompileCache, CompileOptions, Event,
    Executable, Plugin,
};
use crate::plan;
use crate::programs::train_step::{self, TrainStep};
use crate::programs::{self, Program};
use crate::report::Severity;

/// A run that is ready to train.
pub struct Session {
    pub program: Program,
    pub devices: Devices,
    pub state: DeviceState,
    /// None where there are no held-out pictures.
    pub held_out: Option<HeldOut>,
    pub origin: Origin,
    /// Of this process and the others.
    pub hosts: Hosts,
    /// Where several hosts simulate one job.
    pub exchange: Option<Exchange>,
    /// Where several hosts may hold parts of the state.
    pub gather: Option<Gather>,
    executable: Executable,
}

impl Session {
    /// `stop` is the step to stop after. Without a client, connects.
    ///
    /// Loads the plugin, builds and compiles the step, puts the state on the
    /// devices: that of the folder's checkpoint, else the initial one.
    ///
    /// # Errors
    /// [`bad_input!`] for a plugin or devices that are not there, and for a
    /// checkpoint of another model.
    pub fn start(
        options: &Options,
        hosts: Hosts,
        client: Option<Arc<Client>>,
        pictures: &Pictures,
        folder: &mut Folder,
        records: &mut Records,
        stop: u64,
    ) -> Result<Self> {
        let (config, step) = (&options.config, folder.step());
        let client = match client {
            Some(client) => client,
            None => connect(options, &hosts)?,
        };
        tell_plugin(&client, records, step)?;

        let start = match &options.continue_from {
            Some(path) if folder.resume_step().is_none() => Some(Start::read(path, config)?),
            Some(path) => {
                continue_from::same_as_begun(path, config, &folder.run)?;
                None
            }
            None => None,
        };
        let step_of_run = TrainStep::of_run(config, pictures.training_set());
        pictures.check_classes(config)?;
        if step_of_run.queue == 0 && config.method.supervised.is_none() {
            let why = match pictures.train.is_labelled() {
                true => "it has no queue",
                false => "the pictures are not of two classes or more",
            };
            tracing::info!("the kNN monitor is off: {why}");
        }
        let cache = match options.compile_cache {
            true => Some(CompileCache::of_user()?),
            false => None,
        };
        let mut compile = |lowering| {
            let program = train_step::build(&TrainStep {
                lowering,
                ..step_of_run
            })?;
            let text = program.text();
            let executable = compile(&client, &text, config, cache.as_ref(), records, step)?;
            anyhow::Ok((program, text, executable))
        };
        let (program, text, executable) = match programs::lowering(config) {
            Some(lowering) => compile(lowering)?,
            None => {
                let kind = client.devices().first().map_or("", |device| device.kind());
                // Each host has a cache of its own.
                let first = match hosts.count {
                    1 => plan::recommended(&step_of_run, kind)?,
                    _ => None,
                };
                let fits = |(_, _, executable): &(_, _, Executable)| fits(&client, executable);
                let first = first.unwrap_or(Lowering::Unrolled);
                first_that_fits(&config.model, first, compile, fits)?
            }
        };

        let devices = Devices::of(&client, &executable, config.mesh.data)?;
        let exchange = hosts.exchange(config);
        let fingerprint = pictures.train.fingerprint()?;
        if hosts.count > 1 {
            let stance = Stance::new(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("plugin", client.platform_version().to_owned()),
                ("configuration", hosts::of_all(config)),
                ("pictures", fingerprint.clone()),
                ("program", text.clone()),
                ("step to go on from", step.to_string()),
                ("step to stop after", stop.to_string()),
                (
                    "weights to start from",
                    start.as_ref().map_or("none", Start::sha256).to_owned(),
                ),
            ]);
            agree(
                &stance,
                &client,
                &devices,
                hosts.count,
                exchange.as_ref(),
                config,
            )?;
        }
        let origin = origin::of_this_process(config, fingerprint, &text, &client)?;
        tell_differences(folder, &origin, records)?;
        let initial = match folder.take_state() {
            Some(snapshot) => state::arrays(snapshot)?,
            None => {
                let mut initial = train_step::initial_state(&step_of_run);
                if let Some(start) = &start {
                    let (message, evidence) = start.put(config, &mut initial)?;
                    records.tell(0, continue_from::KIND, Severity::Info, &message, evidence)?;
                }
                initial
            }
        };
        let state = DeviceState::upload(&program, &devices, initial)
            .with_context(|| format!("the state after step {step}"))?;
        check_aliasing(&executable, state.bytes())?;

        let gather = match hosts.count {
            1 => None,
            _ => {
                let (devices, deadline) = (config.mesh.data, hosts::deadline(config));
                Some(Gather::new(&client, &program, devices, deadline)?)
            }
        };

        let held_out = match &pictures.test {
            // One host is enough.
            Some(_) if !hosts.leads() => None,
            None => {
                tracing::info!(
                    "held-out {} is off: no labelled test split belongs to these pictures",
                    Measure::of(config).name()
                );
                None
            }
            Some(test) => Some(HeldOut::new(
                &client,
                config,
                &pictures.bank,
                test,
                cache.as_ref(),
            )?),
        };
        Ok(Self {
            program,
            devices,
            state,
            held_out,
            origin,
            hosts,
            exchange,
            gather,
            executable,
        })
    }

    /// Enqueues a step on its arguments beside the state. Gives its metrics
    /// and, for each device, the event that it is done.
    pub fn enqueue(&mut self, inputs: &[Vec<Buffer>]) -> Result<(Buffer, Vec<Event>)> {
        let mut arguments = self.state.donate();
        for (row, inputs) in arguments.iter_mut().zip(inputs) {
            row.extend(inputs.iter().map(Arg::Borrow));
        }
        let outputs = self.executable.execute(arguments)?;
        let metrics = self.state.take(outputs.buffers);
        // All devices have the same.
        let first = metrics.into_iter().flatten().next();
        Ok((first.context("the step gave no metrics")?, outputs.done))
    }
}

/// The devices that a plugin has, on all hosts. The client that is asked is
/// gone on return.
///
/// # Errors
/// [`bad_input!`] for a CPU, which has as many as one asks for.
pub fn all_devices(pjrt: &str) -> Result<usize> {
    let plugin = load(pjrt)?;
    let client = Client::new(&plugin, &ClientOptions::default())?;
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

pub fn connect(options: &Options, hosts: &Hosts) -> Result<Arc<Client>> {
    let plugin = load(&options.pjrt)?;
    let devices = ClientOptions {
        devices: Some(options.config.mesh.data),
        rendezvous: hosts.rendezvous(),
        ..ClientOptions::default()
    };
    Client::new(&plugin, &devices)
}

/// Whether a program's memory is no more than the device's, where the plugin
/// tells both: not all compilers refuse what does not fit.
fn fits(client: &Client, executable: &Executable) -> Result<bool> {
    let device = client
        .devices()
        .first()
        .context("a client without devices")?;
    let limit = device.memory_in_use()?.and_then(|memory| memory.limit);
    let (Some(memory), Some(limit)) = (executable.memory_stats()?, limit) else {
        return Ok(true);
    };
    Ok(memory.total() <= limit)
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

fn compile(
    client: &Client,
    text: &str,
    config: &RunConfig,
    cache: Option<&CompileCache>,
    records: &mut Records,
    step: u64,
) -> Result<Executable> {
    let options = CompileOptions {
        num_partitions: config.mesh.data,
        ..CompileOptions::default()
    };
    let start = Instant::now();
    let program = pjrt::Program { text };
    let (executable, from) = client
        .compile_cached(&program, &options, cache)
        .context("cannot compile the train step")?;
    let seconds = start.elapsed().as_secs_f64();
    let cached = from == pjrt::Origin::Cache;
    let message = match cached {
        true => format!("train step from the compile cache in {seconds:.1} s"),
        false => format!("train step compiled in {seconds:.1} s"),
    };
    let memory = executable.memory_stats()?;
    let evidence = json!({
        "seconds": seconds,
        "cached": cached,
        "temp_bytes": memory.map(|memory| memory.temp_bytes),
    });
    records.tell(step, "compile", Severity::Info, &message, evidence)?;
    Ok(executable)
}

/// The step must update the state in place: a copy would double its memory.
fn check_aliasing(executable: &Executable, state_bytes: usize) -> Result<()> {
    let Some(memory) = executable.memory_stats()? else {
        tracing::debug!("the plugin does not tell whether the state is updated in place");
        return Ok(());
    };
    ensure!(
        memory.alias_bytes >= state_bytes as u64,
        "the step would copy its state instead of updating it in place: the state has \
         {state_bytes} bytes on each device, the compiled program reuses {}",
        memory.alias_bytes
    );
    Ok(())
}

fn tell_plugin(client: &Client, records: &mut Records, step: u64) -> Result<()> {
    let (major, minor) = client.plugin().api_version();
    let kind = client.devices().first().map_or("", |device| device.kind());
    let message = format!(
        "plugin {} (PJRT API {major}.{minor}), {} of {kind:?}, thread pool of {}",
        client.platform_name(),
        match client.devices().len() {
            1 => "1 device".to_owned(),
            n => format!("{n} devices"),
        },
        pjrt::pinned_threads(),
    );
    let evidence = json!({
        "path": client.plugin().path(),
        "version": client.platform_version(),
        "devices": client.devices().len(),
        "threads": pjrt::pinned_threads(),
    });
    records.tell(step, "plugin", Severity::Info, &message, evidence)
}

fn tell_differences(folder: &Folder, now: &Origin, records: &mut Records) -> Result<()> {
    let Some(before) = folder.origin() else {
        return Ok(());
    };
    let differences = origin::what_differs(before, now);
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!(
        "this is not what the checkpoint was made with: {}. The run sees the same pictures, but \
         reductions may differ in the last bits",
        differences.join("; ")
    );
    let evidence = json!({ "differences": differences });
    records.tell(
        folder.step(),
        "other_machine",
        Severity::Warning,
        &message,
        evidence,
    )
}

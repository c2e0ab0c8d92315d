//! All that is there before the first step: plugin, client, program,
//! compilation, state.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Options;
use super::devices::Devices;
use super::folder::Folder;
use super::hosts::{Hosts, Stance, agree};
use super::origin;
use super::pictures::Pictures;
use super::records::Records;
use super::state::{self, DeviceState};
use crate::bad_input;
use crate::checkpoint::Origin;
use crate::config::{Model, OptimizerSharding, RunConfig};
use crate::eval::knn::HeldOut;
use crate::graph::block::Lowering;
use crate::models;
use crate::pjrt::install::{self, ResolveOptions};
use crate::pjrt::{
    self, Arg, Buffer, Client, ClientOptions, Code, CompileCache, CompileOptions, Event, Executable,
};
use crate::plan;
use crate::programs::train_step::{self, TrainStep};
use crate::programs::{self, Program, agreement};
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
    executable: Executable,
}

impl Session {
    /// Loads the plugin, builds and compiles the step, puts the state on the
    /// devices: that of the folder's checkpoint, else the initial one.
    ///
    /// # Errors
    /// [`bad_input!`] for a plugin or devices that are not there, and for a
    /// checkpoint of another model.
    pub fn start(
        options: &Options,
        hosts: Hosts,
        pictures: &Pictures,
        folder: &mut Folder,
        records: &mut Records,
    ) -> Result<Self> {
        let (config, step) = (&options.config, folder.step());
        let client = connect(options, &hosts)?;
        let hosts = hosts.of(&client)?;
        hosts.check(config)?;
        if hosts.are_apart() && config.optimizer_sharding == OptimizerSharding::Zero1 {
            return Err(bad_input!(
                "`optimizer_sharding` is \"zero1\" on {} hosts: a state that is split over hosts \
                 cannot be saved; expected \"replicated\"",
                hosts.count
            ));
        }
        tell_plugin(&client, records, step)?;

        let step_of_run = TrainStep::of_run(config, pictures.training_set());
        if step_of_run.queue == 0 {
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
                let first = plan::recommended(&step_of_run, kind)?;
                first_that_fits(&config.model, first.unwrap_or(Lowering::Unrolled), compile)?
            }
        };

        let devices = Devices::of(&client, &executable, config.mesh.data)?;
        let fingerprint = pictures.train.fingerprint()?;
        if hosts.count > 1 {
            let stance = Stance::new(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("plugin", client.platform_version().to_owned()),
                ("configuration", config.fingerprint()),
                ("pictures", fingerprint.clone()),
                ("program", text.clone()),
                ("step to go on from", step.to_string()),
            ]);
            compare(&client, &devices, &hosts, config, &stance)?;
        }
        let origin = origin::of_this_process(config, fingerprint, &text, &client)?;
        tell_differences(folder, &origin, records)?;
        let initial = match folder.take_state() {
            Some(snapshot) => state::arrays(snapshot)?,
            None => train_step::initial_state(&step_of_run),
        };
        let state = DeviceState::upload(&program, &devices, initial)
            .with_context(|| format!("the state after step {step}"))?;
        check_aliasing(&executable, state.bytes())?;

        let held_out = match &pictures.test {
            // One host is enough.
            Some(_) if !hosts.leads() => None,
            None => {
                tracing::info!(
                    "held-out kNN is off: no labelled test split belongs to these pictures"
                );
                None
            }
            Some(test) => Some(HeldOut::new(
                &client,
                config,
                &pictures.train,
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

/// Runs the program in which all hosts compare what they are about to run.
fn compare(
    client: &Client,
    devices: &Devices,
    hosts: &Hosts,
    config: &RunConfig,
    stance: &Stance,
) -> Result<()> {
    let program = agreement::build(devices.all(), stance.width())?;
    let options = CompileOptions {
        num_partitions: devices.all(),
        ..CompileOptions::default()
    };
    let text = program.text();
    let executable = client.compile(&pjrt::Program { text: &text }, &options)?;
    let input = &program.graph.inputs[0];
    let mut own = stance.rows(devices.all() / hosts.count);
    if let Some(exchange) = hosts.exchange(config) {
        own = exchange.join("stance", &own)?;
    }
    let (shape, sharding) = (input.value.shape, input.sharding.as_ref());
    let rows = devices.place_own(&own, shape, sharding)?.into_iter();
    let rows = rows.map(|row| vec![Arg::Donate(row)]).collect();
    let results = executable.execute(rows)?;
    let all = results.buffers.into_iter().flatten().next();
    let all = all.context("the agreement gave nothing")?.to_host()?;
    agree(stance, &all, hosts.count)
}

fn connect(options: &Options, hosts: &Hosts) -> Result<Arc<Client>> {
    if options.pjrt == "tpu" && !pjrt::tpu_is_present() {
        return Err(bad_input!(
            "--pjrt tpu: this machine has no TPU to train on; use --pjrt cpu here, or run the \
             same command on a TPU machine"
        ));
    }
    let plugin = install::load(&options.pjrt, &ResolveOptions::default())?;
    let devices = ClientOptions {
        devices: Some(hosts.devices(options.config.mesh.data)),
        rendezvous: hosts.rendezvous(),
        ..ClientOptions::default()
    };
    Client::new(&plugin, &devices)
}

/// Compiles with the lowering `first`, or with the first of those after it that
/// the compiler does not refuse for want of memory.
fn first_that_fits<T>(
    model: &Model,
    first: Lowering,
    mut compile: impl FnMut(Lowering) -> Result<T>,
) -> Result<T> {
    let mut lighter = models::lowerings(model).skip_while(|l| *l != first);
    let mut lowering = lighter.next().unwrap_or(first);
    loop {
        let error = match compile(lowering) {
            Ok(compiled) => return Ok(compiled),
            Err(error) => error,
        };
        let refusal = error.downcast_ref::<pjrt::Error>();
        let no_memory = refusal.is_some_and(|e| e.code() == Some(Code::RESOURCE_EXHAUSTED));
        match lighter.next().filter(|_| no_memory) {
            None => return Err(error),
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

//! All that is there before the first step: plugin, client, program,
//! compilation, state.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Options;
use super::compilation::{CompiledStep, autotune_folder, compile_step, connect, step_options};
use super::continue_from::{self, Start};
use super::devices::Devices;
use super::folder::Folder;
use super::gather::Gather;
use super::held_out::{HeldOut, Measure};
use super::hosts::{self, Exchange, Hosts, Stance, agree};
use super::memory::{Footprint, with_advice};
use super::origin;
use super::pictures::Pictures;
use super::records::Records;
use super::state::{self, DeviceState};
use crate::checkpoint::Origin;
use crate::pjrt::{self, Buffer, Client, CompileCache, Event, Executable};
use crate::programs::Program;
use crate::programs::train_step::{self, TrainStep};
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
    /// What the step takes of a device.
    pub footprint: Footprint,
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
            None => connect(&options.pjrt, config, Some(&hosts))?,
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
        // Each host has a cache of its own.
        let recommend = hosts.count == 1;
        let autotune = autotune_folder(config, Some(&folder.root))?;
        let compiled = compile_step(
            &client,
            &step_of_run,
            &step_options(config, &client, &autotune),
            cache.as_ref(),
            recommend,
            &mut |executable, seconds, origin| {
                tell_compiled(executable, seconds, origin, records, step)
            },
        )?;
        let footprint = compiled.footprint(&client)?;
        let CompiledStep {
            program,
            text,
            executable,
            ..
        } = compiled;

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
            .with_context(|| format!("the state after step {step}"))
            .map_err(|error| with_advice(error, config, &footprint))?;
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
            footprint,
            executable,
        })
    }

    /// Enqueues a step on its arguments beside the state. Gives its metrics
    /// and, for each device, the event that it is done.
    pub fn enqueue(&mut self, inputs: &[Vec<Buffer>]) -> Result<(Buffer, Vec<Event>)> {
        self.state.step(&self.executable, inputs)
    }
}

fn tell_compiled(
    executable: &Executable,
    seconds: f64,
    origin: pjrt::Origin,
    records: &mut Records,
    step: u64,
) -> Result<()> {
    let cached = origin == pjrt::Origin::Cache;
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
    records.tell(step, "compile", Severity::Info, &message, evidence)
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

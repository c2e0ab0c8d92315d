//! The loop: pictures in, steps on the devices, metrics and checkpoints out.
//!
//! The data's way, and the order in which to read:
//!
//! | module | what it does |
//! |---|---|
//! | `pictures` | opens the training pictures and the held-out ones |
//! | `plan` | what happens after which step: schedule, evaluations, checkpoints, stop |
//! | `folder`, `origin` | takes the run's folder; whether what is there can be gone on from, and to the same bits |
//! | `compilation` | plugin, client, the step built and compiled |
//! | `session` | these and the state: all that is there before the first step |
//! | `continue_from` | weights that a run starts from |
//! | `devices`, `state`, `gather`, `feed` | arrays to the devices; the train state there, and its copies on the host, with what is split over hosts; a step's batch and scalars |
//! | `draws` | mixtures, erased rectangles and skipped branches of training with labels |
//! | `first_step` | the first step's arguments on the host, for another client |
//! | `run_loop` | the loop itself |
//! | `memory` | what to lower where the devices' memory was full |
//! | `bench` | the step timed, without a run |
//! | `hosts` | the processes that train together: shares, agreement, silence |
//! | `in_flight`, `clock` | steps enqueued and not finished, and their metrics; where the time goes |
//! | `records`, `corrupt_list`, `held_out` | metrics, events, TensorBoard, progress |
//!
//! Invariants:
//! - The state after step N is a pure function of (configuration, pictures,
//!   seed, N), plugin and thread pool: a resume gives the bits of an unbroken
//!   run, wherever it was broken off.
//! - The host waits for the device only where as many steps as allowed are
//!   under way, and around evaluations.
//! - A checkpoint has its name only when all metrics lines up to its step are
//!   on disk.

mod bench;
mod clock;
mod compilation;
mod continue_from;
mod corrupt_list;
mod devices;
mod draws;
mod feed;
mod first_step;
mod folder;
mod gather;
mod held_out;
mod hosts;
mod in_flight;
mod memory;
mod origin;
mod parts;
mod pictures;
mod plan;
mod records;
mod run_loop;
mod session;
mod signals;
mod state;

use std::path::PathBuf;

use anyhow::Result;

use crate::checkpoint::RunDir;
use crate::config::RunConfig;
use crate::monitor::Health;
use crate::{pjrt, report};
use folder::Folder;
pub use held_out::Measure;
use hosts::Hosts;
use plan::Plan;
use records::Records;
use run_loop::RunLoop;
use session::Session;
use signals::StopRequest;

pub use bench::{Options as BenchOptions, Report as BenchReport, Timing, bench};
pub use compilation::{all_devices, client};
pub use feed::loader;
pub use first_step::first_arguments;
pub use hosts::Job;
pub use parts::Parts;
pub use pictures::{Pictures, Places, at};

/// What is to be run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: RunConfig,
    /// The run's folder: made, or resumed.
    pub out: PathBuf,
    /// `cpu`, `gpu`, `tpu`, `rocm`, or the path of a plugin.
    pub pjrt: String,
    /// Use and fill the user's cache of compiled programs.
    pub compile_cache: bool,
    /// Stop after this step, counted from the run's first; the schedule stays
    /// as it is.
    pub steps: Option<u64>,
    /// Weights to start from where the folder has no checkpoint yet: a file, a
    /// run, or a folder of another tool.
    pub continue_from: Option<PathBuf>,
    /// One of several hosts, for plugins that do not know of each other's
    /// processes.
    pub job: Option<Job>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The schedule's last step is done.
    Finished,
    /// As far as `--steps` asked.
    Stopped,
    /// A signal asked for it.
    Interrupted,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub end: End,
    pub run: RunDir,
    /// Steps done, and of the whole schedule.
    pub step: u64,
    pub total_steps: u64,
    /// How held-out pictures were classified.
    pub measure: Measure,
    /// Held-out accuracy in percent by step, of the whole run.
    pub held_out: Vec<(u64, f64)>,
    /// The verdict on the whole run.
    pub health: Health,
    /// What this process trained; none where there was nothing to do.
    pub trained: Option<Trained>,
}

/// What one process trained.
#[derive(Clone, Copy, Debug)]
pub struct Trained {
    pub steps: u64,
    pub images_per_second: f64,
    /// Share of the time that the devices waited for input, 0 to 1.
    pub input_wait: f64,
}

/// Trains, from the start or from the newest checkpoint in the folder.
///
/// Call it while the process has one thread: it sets the size of the plugin's
/// thread pool through the environment ([`pjrt::pin_threads`]).
///
/// # Errors
/// [`crate::error::BadInput`] for data, a folder or a checkpoint that do not
/// fit the configuration; [`crate::error::Unhealthy`] where the configuration
/// asks to stop a run that has diverged; any other error is a failure of the
/// run, and the same call resumes it.
pub fn run(options: &Options) -> Result<Outcome> {
    let config = &options.config;
    let stop = StopRequest::on_signals()?;
    let pictures = Pictures::of(config)?;
    let plan = Plan::new(config, pictures.train.len(), options.steps)?;
    let hosts = Hosts::join(options.job.as_ref(), &options.pjrt)?;
    // Only a client knows a TPU's hosts; a CPU's comes when its threads are known.
    let client = match options.pjrt == "cpu" {
        true => None,
        false => Some(compilation::connect(&options.pjrt, config, Some(&hosts))?),
    };
    let hosts = match &client {
        Some(client) => hosts.of(client)?,
        None => hosts,
    };
    hosts.check(config, client.as_deref())?;
    let own = hosts.folder(&options.out);
    let data = pictures.train.fingerprint()?;
    let mut folder = Folder::take(&options.out, &own, config, &data)?;
    if folder.step() >= plan.stop {
        return Ok(Outcome {
            end: plan.end_at(folder.step()),
            measure: Measure::of(config),
            held_out: held_out::history(&folder.run, Measure::of(config))?,
            step: folder.step(),
            total_steps: plan.schedule.total_steps,
            trained: None,
            health: report::health(&folder.run)?,
            run: folder.run,
        });
    }
    // The number that the run began with: the last bits depend on it.
    let threads = folder.threads().unwrap_or_else(pjrt::pinned_threads);
    pjrt::pin_threads(threads.max(least_threads(&options.pjrt, config)))?;

    let mut records = Records::open(&folder, config, &plan)?;
    records.started(&pictures)?;
    let outcome = (|| {
        let session = Session::start(
            options,
            hosts,
            client,
            &pictures,
            &mut folder,
            &mut records,
            plan.stop,
        )?;
        // From here on nothing changes the environment, as threads forbid.
        let _page = report::Refresher::start(&folder.run);
        RunLoop::new(
            config,
            &plan,
            &pictures,
            &folder,
            session,
            &mut records,
            &stop,
        )?
        .run()
    })();
    let (end, step) = match outcome {
        Ok(ended) => ended,
        Err(error) => {
            records.failed(&error);
            // The error itself matters more than a page about it.
            let _ = report::write_html(&folder.run);
            return Err(error);
        }
    };
    let trained = records.finish();
    report::write_html(&folder.run)?;
    Ok(Outcome {
        end,
        health: report::health(&folder.run)?,
        measure: Measure::of(config),
        held_out: held_out::history(&folder.run, Measure::of(config))?,
        step,
        total_steps: plan.schedule.total_steps,
        trained: Some(trained),
        run: folder.run.clone(),
    })
}

/// Several devices of a CPU wait for each other on the threads of one pool:
/// with as few as there are devices, all may wait for different things.
fn least_threads(pjrt: &str, config: &RunConfig) -> usize {
    match config.mesh.data {
        devices if devices > 1 && pjrt == "cpu" => 4 * devices,
        _ => 1,
    }
}

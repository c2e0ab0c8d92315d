//! How fast a train step is: the step that [`super::run`] runs, without a run.

mod steps;

use anyhow::Result;
use serde::Serialize;

use super::compilation::{autotune_folder, compile_step, connect, step_options};
use super::memory::with_advice;
use super::pictures::Pictures;
use super::plan::Plan;
use crate::bad_input;
use crate::config::{ComputeDtype, RunConfig};
use crate::pjrt::{self, Client, CompileCache, Origin};
use crate::plan;
use crate::programs::train_step::{TrainStep, Views};
use steps::Runner;

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: RunConfig,
    /// As in [`super::Options`].
    pub pjrt: String,
    pub compile_cache: bool,
    /// Steps that are timed, and steps before them.
    pub steps: usize,
    pub warmup: usize,
    /// The bare step on finished views: without augmentation and monitors, for
    /// comparison with programs that lack these. It has no input to read.
    pub core: bool,
    /// What a device can do, TFLOP/s; none: by its data sheet, if it is known.
    pub peak_tflops: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub platform: String,
    pub platform_version: String,
    pub device_kind: String,
    pub devices: usize,
    /// Pictures a step, over all devices.
    pub batch: usize,
    pub image_size: usize,
    pub compute_dtype: ComputeDtype,
    pub lowering: &'static str,
    pub accumulate: usize,
    /// Whether augmentation and monitors were left out.
    pub core: bool,
    pub compile_seconds: f64,
    pub compiled_from_cache: bool,
    pub warmup: usize,
    pub steps: usize,
    /// FLOPs of a step's matrix products, over all devices, nothing computed
    /// twice.
    pub model_flops: f64,
    /// Of one device, by `--peak-tflops` or its data sheet.
    pub peak_flops: Option<f64>,
    /// Bytes on the fullest device: by the plugin's count, else what the
    /// compiled program takes.
    pub peak_memory_bytes: Option<u64>,
    pub peak_memory_from: Option<&'static str>,
    /// One batch that stays on the devices.
    pub without_input: Timing,
    /// Pictures read, cut and copied as in a run.
    pub with_input: Option<Timing>,
}

/// Steps of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    pub step_seconds: Spread,
    /// By the median.
    pub images_per_second: f64,
    /// Model FLOP utilisation, 0 to 1; none without a known peak.
    pub mfu: Option<f64>,
    /// Share of the time that the devices waited for input, 0 to 1.
    pub input_wait: f64,
    /// Loss of the last step: finite where the step computes.
    pub last_loss: f32,
}

/// The spread of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub p10: f64,
    pub p90: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    fn of(mut sample: Vec<f64>) -> Option<Self> {
        sample.sort_by(f64::total_cmp);
        // Between neighbours the quantile is interpolated.
        let at = |share: f64| {
            let place = share * (sample.len() - 1) as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            sample[low] + (place - low as f64) * (sample[high] - sample[low])
        };
        (!sample.is_empty()).then(|| Self {
            median: at(0.5),
            p10: at(0.1),
            p90: at(0.9),
            min: at(0.0),
            max: at(1.0),
        })
    }
}

/// More say nothing new.
const MOST_STEPS: usize = 1_000_000;

/// Compiles a configuration's train step and times it on a plugin's devices:
/// on one batch that stays there, then with pictures that are read.
///
/// Call it while the process has one thread, as [`super::run`].
///
/// # Errors
/// [`crate::error::BadInput`] for what cannot be run; the plugin's.
pub fn bench(options: &Options) -> Result<Report> {
    let config = &options.config;
    if options.steps == 0 || options.warmup == 0 {
        return Err(bad_input!(
            "--steps is {} and --warmup {}; expected 1 or more of both: the first step is timed \
             from the end of the one before",
            options.steps,
            options.warmup
        ));
    }
    if options.steps.max(options.warmup) > MOST_STEPS {
        return Err(bad_input!(
            "--steps is {} and --warmup {}; expected at most {MOST_STEPS}",
            options.steps,
            options.warmup
        ));
    }
    if let Some(peak) = options.peak_tflops
        && !(peak.is_finite() && peak > 0.0)
    {
        return Err(bad_input!(
            "--peak-tflops is {peak}; expected a number above 0"
        ));
    }
    if options.core && config.method.supervised.is_some() {
        return Err(bad_input!(
            "--core is of pre-training; training with labels has no step on finished views"
        ));
    }
    let pictures = Pictures::of(config)?;
    pictures.check_classes(config)?;
    let plan = Plan::new(config, pictures.train.len(), None)?;
    let threads = pjrt::pinned_threads();
    pjrt::pin_threads(threads.max(super::least_threads(&options.pjrt, config)))?;
    let client = connect(&options.pjrt, config, None)?;
    if client.processes().iter().any(|process| *process != 0) {
        return Err(bad_input!(
            "the plugin's devices are of several hosts; a step of one host is timed"
        ));
    }
    let step = match options.core {
        false => TrainStep::of_run(config, pictures.training_set()),
        true => TrainStep {
            views: Views::Normalised,
            queue: 0,
            ..TrainStep::of_run(config, pictures.training_set())
        },
    };
    let cache = match options.compile_cache {
        true => Some(CompileCache::of_user()?),
        false => None,
    };
    let (mut seconds, mut origin) = (0.0, Origin::Compiler);
    let compiled = compile_step(
        &client,
        &step,
        &step_options(config, &client, &autotune_folder(config, None)?),
        cache.as_ref(),
        true,
        &mut |_, took, from| {
            (seconds, origin) = (took, from);
            Ok(())
        },
    )?;
    let footprint = compiled.footprint(&client)?;
    let mut runner = Runner::new(options, &pictures, &plan, &client, compiled, &step)
        .map_err(|error| with_advice(error, config, &footprint))?;
    let kind = client.devices().first().map_or("", |device| device.kind());
    let given = options.peak_tflops.map(|tflops| tflops * 1e12);
    let peak_flops = given.or_else(|| plan::peak_flops(kind, config.model.compute_dtype));
    let model_flops = plan::model_flops(&TrainStep {
        lowering: footprint.lowering,
        ..step
    })?;
    let mut measure = |with_input| {
        let measured = runner.measure(with_input)?;
        let median = measured.spread.median;
        let all = |peak: f64| peak * config.mesh.data as f64;
        anyhow::Ok(Timing {
            step_seconds: measured.spread,
            images_per_second: config.batch as f64 / median,
            mfu: peak_flops.map(|peak| model_flops / median / all(peak)),
            input_wait: measured.input_wait,
            last_loss: measured.last_loss,
        })
    };
    let mut both = || {
        let without = measure(false)?;
        let with = (!options.core).then(|| measure(true)).transpose()?;
        anyhow::Ok((without, with))
    };
    let (without_input, with_input) =
        both().map_err(|error| with_advice(error, config, &footprint))?;
    let told = peak_memory(&client)?;
    Ok(Report {
        platform: client.platform_name().to_owned(),
        platform_version: client.platform_version().to_owned(),
        device_kind: kind.to_owned(),
        devices: config.mesh.data,
        batch: config.batch,
        image_size: config.model.image_size,
        compute_dtype: config.model.compute_dtype,
        lowering: footprint.lowering.name(),
        accumulate: config.accumulate,
        core: options.core,
        compile_seconds: seconds,
        compiled_from_cache: origin == Origin::Cache,
        warmup: options.warmup,
        steps: options.steps,
        model_flops,
        peak_flops,
        peak_memory_bytes: told.or(footprint.needs),
        peak_memory_from: match (told, footprint.needs) {
            (Some(_), _) => Some("plugin"),
            (None, Some(_)) => Some("compiler"),
            _ => None,
        },
        without_input,
        with_input,
    })
}

/// The most that any device has held, where the plugin counts.
fn peak_memory(client: &Client) -> Result<Option<u64>> {
    let mut most = None;
    for device in client.devices() {
        let memory = device.memory_in_use()?;
        most = most.max(memory.and_then(|memory| memory.peak));
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_lies_between_its_ends() {
        let found = Spread::of(vec![4.0, 1.0, 2.0, 3.0, 5.0]).unwrap();
        let expected = Spread {
            median: 3.0,
            p10: 1.4,
            p90: 4.6,
            min: 1.0,
            max: 5.0,
        };
        assert_eq!(found, expected);
        assert_eq!(Spread::of(vec![2.0]).unwrap().p90, 2.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}

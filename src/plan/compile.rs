//! A run's step on a target: from what its compiler says to a [`Report`].

use anyhow::Result;

use super::buffers::biggest_written;
use super::estimate::{has_loop, network, products, roofline};
use super::facts::{BUFFERS, Facts, facts};
use super::options::{check_platform, step_options};
use super::report::{Alternative, Pace, Report};
use super::target::Machine;
use crate::config::{Attention, Backbone, ComputeDtype, Mesh, OptimizerSharding, RunConfig};
use crate::graph::block::Lowering;
use crate::models;
use crate::programs::Program;
use crate::programs::train_step::{self, TrainStep, Views};

/// Compiles a step, whose mesh is all of the machine, and reports. Where its
/// lowering does not fit, those that need less memory are tried; where none of
/// them does, with the lightest the optimizer's state is split over the devices
/// (ZeRO-1), and the batch is taken in chunks (`accumulate`).
///
/// Where the configuration leaves the lowering open, the first one that fits is
/// reported, as `train` takes it; otherwise the one asked for.
///
/// # Errors
/// The compiler's, except that the program does not fit.
pub fn compile(
    machine: &Machine,
    step: &TrainStep,
    is_open: bool,
    price: Option<f64>,
) -> Result<Report> {
    let mut report = report(machine, step, price)?;
    let mut tried = Vec::new();
    let mut lightest = step.lowering;
    for lowering in models::lighter(&step.config.model, step.lowering) {
        if report.fits || tried.last().is_some_and(|last: &Alternative| last.fits) {
            break;
        }
        tracing::info!("it does not fit; trying lowering={}", lowering.name());
        let other = self::report(machine, &TrainStep { lowering, ..*step }, price)?;
        lightest = lowering;
        if is_open {
            tried.push(Alternative::of(&report, step.config));
            report = other;
        } else {
            tried.push(Alternative::of(&other, step.config));
        }
    }
    for config in lighter(step.config) {
        if report.fits || tried.last().is_some_and(|last| last.fits) {
            break;
        }
        let (sharding, chunks) = (config.optimizer_sharding.name(), config.accumulate);
        tracing::info!(
            "it does not fit; trying optimizer_sharding={sharding}, accumulate={chunks}"
        );
        let lighter = TrainStep {
            config: &config,
            lowering: lightest,
            ..*step
        };
        let other = self::report(machine, &lighter, price)?;
        tried.push(Alternative::of(&other, step.config));
    }
    report.alternatives = tried;
    Ok(report)
}

/// The same run with less memory than any lowering gives: the optimizer's state
/// split, then the batch in ever smaller chunks, where that is exact.
fn lighter(config: &RunConfig) -> Vec<RunConfig> {
    let mut all = Vec::new();
    let mut split = config.clone();
    if config.mesh.data > 1 && config.optimizer_sharding == OptimizerSharding::Replicated {
        split.optimizer_sharding = OptimizerSharding::Zero1;
        all.push(split.clone());
    }
    for times in [4, 16, 64] {
        let accumulate = config.accumulate * times;
        let chunked = RunConfig {
            accumulate,
            ..split.clone()
        };
        let divides = config.batch.is_multiple_of(accumulate * config.mesh.data);
        if divides && models::check_accumulate(&chunked).is_ok() {
            all.push(chunked);
        }
    }
    all
}

/// Compiles a step and reports.
///
/// # Errors
/// The compiler's, except that the program does not fit.
pub fn report(machine: &Machine, step: &TrainStep, price: Option<f64>) -> Result<Report> {
    let config = step.config;
    check_platform(config, &machine.platform)?;
    let program = train_step::build(step)?;
    // Nothing is measured where no device is, so nothing is kept.
    let options = step_options(config, &machine.platform, None);
    let facts = facts(machine, &program.text(), &options)?;
    let share = share_of_one_device(step, machine.devices)?;
    let all = products(&program.graph);
    let model = products(&computed_once(step)?.graph);
    let per_device = |flops: u64| flops as f64 / machine.devices as f64;
    let model_flops = per_device(model.bf16_flops + model.f32_flops);
    let hardware_flops = match config.model.compute_dtype {
        ComputeDtype::Bf16 => machine.hardware.bf16_flops,
        ComputeDtype::F32 => machine.hardware.f32_flops,
    };
    let loops = has_loop(&program.graph);
    let estimated_seconds = facts.optimal_seconds.filter(|_| !loops);
    let roofline_seconds = roofline(&machine.hardware, &share.graph);
    let memory = facts.memory;
    let totals = facts.collectives.as_ref();
    Ok(Report {
        target: machine.target.to_string(),
        platform: machine.platform.clone(),
        device_kind: machine.device_kind.clone(),
        devices: machine.devices,
        hardware: machine.hardware,
        program: described(step),
        batch: config.batch,
        lowering: step.lowering.name().to_owned(),
        accumulate: config.accumulate,
        optimizer_sharding: config.optimizer_sharding,
        fits: fits(machine, config, &facts),
        argument_bytes: memory.map(|m| m.argument_bytes),
        output_bytes: memory.map(|m| m.output_bytes),
        alias_bytes: memory.map(|m| m.alias_bytes),
        temp_bytes: memory.map(|m| m.temp_bytes),
        generated_code_bytes: memory.map(|m| m.generated_code_bytes),
        peak_bytes: memory.and_then(|m| m.peak_bytes),
        used_bytes: memory.map(|m| m.total()).or(facts.used_bytes),
        capacity_bytes: facts.capacity_bytes,
        estimated_seconds,
        flops: facts.flops,
        bytes_accessed: facts.bytes_accessed,
        matmul_flops: per_device(all.bf16_flops + all.f32_flops),
        model_flops,
        roofline_seconds,
        // A loop's body stands in the text once, however often it turns.
        interconnect_seconds: totals
            .filter(|_| !loops)
            .and_then(|totals| network(&machine.hardware, machine.devices, totals)),
        buffers_from: match facts.refusal {
            None => {
                "results of the optimised HLO's instructions, without padding; not all live at once"
            }
            Some(_) if facts.biggest.is_empty() => {
                "of the program as we wrote it, a device's part; the compiler gave no list; not \
                 all live at once"
            }
            Some(_) => "the compiler's list of the largest allocations",
        },
        collectives: facts.collectives,
        collectives_by_scope: facts.places,
        biggest_buffers: match facts.refusal.is_some() && facts.biggest.is_empty() {
            true => biggest_written(&share.graph, BUFFERS),
            false => facts.biggest,
        },
        refusal: facts.refusal,
        alternatives: Vec::new(),
        compile_seconds: facts.compile_seconds,
        pace: Pace::new(
            estimated_seconds,
            roofline_seconds,
            model_flops,
            hardware_flops,
            config.batch,
            price.map(|price| price * machine.devices as f64),
        ),
    })
}

/// Memory is known exactly; a compiler that refuses what does not fit has done
/// so by now.
fn fits(machine: &Machine, config: &RunConfig, facts: &Facts) -> bool {
    let there = machine.usable_memory(config.gpu.memory_fraction);
    let fits = |memory: u64| there == 0 || memory <= there;
    facts.refusal.is_none() && facts.memory.is_none_or(|memory| fits(memory.total()))
}

/// FLOPs of a step's matrix products, over all devices, nothing computed twice.
pub fn model_flops(step: &TrainStep) -> Result<f64> {
    let products = products(&computed_once(step)?.graph);
    Ok((products.bf16_flops + products.f32_flops) as f64)
}

/// The program without what is computed again to save memory, its products all
/// told.
fn computed_once(step: &TrainStep) -> Result<Program> {
    let mut config = RunConfig {
        accumulate: 1,
        ..step.config.clone()
    };
    if let Backbone::Vit(vit) = &mut config.model.backbone {
        vit.attention = Attention::Plain;
    }
    let step = TrainStep {
        config: &config,
        lowering: Lowering::Unrolled,
        ..*step
    };
    Ok(train_step::build(&step)?)
}

/// One device's part as a program of its own. Only the loss sees more than
/// that: its keys are those of all.
fn share_of_one_device(step: &TrainStep, devices: usize) -> Result<Program> {
    let config = RunConfig {
        batch: (step.config.batch / devices).max(1),
        mesh: Mesh {
            data: 1,
            ..step.config.mesh.clone()
        },
        ..step.config.clone()
    };
    let step = TrainStep {
        config: &config,
        ..*step
    };
    Ok(train_step::build(&step)?)
}

fn described(step: &TrainStep) -> String {
    match (step.views, step.queue) {
        (Views::Normalised, _) => "train step on finished views, without augmentation".into(),
        (Views::Augmented, 0) => "train step with augmentation, without kNN monitor".into(),
        (Views::Augmented, rows) => {
            format!("train step with augmentation and a kNN queue of {rows}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lighter_settings_split_the_state_then_take_ever_smaller_chunks_that_divide() {
        let settings = |arch: &str, devices: usize| {
            let config = RunConfig::from_value(json!({
                "batch": 64, "mesh": {"data": devices}, "model": {"arch": arch},
                "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
                "schedule": {"epochs": 10},
            }));
            let all = lighter(&config.unwrap()).into_iter();
            all.map(|c| (c.optimizer_sharding.name(), c.accumulate))
                .collect::<Vec<_>>()
        };
        let on_one = [("replicated", 4), ("replicated", 16), ("replicated", 64)];
        assert_eq!(settings("vit_small", 1), on_one);
        let on_four = [("zero1", 1), ("zero1", 4), ("zero1", 16)];
        assert_eq!(settings("vit_small", 4), on_four);
        // BN's statistics are those of the whole batch.
        assert_eq!(settings("resnet50", 4), [("zero1", 1)]);
    }
}

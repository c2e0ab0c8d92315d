//! A run's step on a target: from what its compiler says to a [`Report`].

use anyhow::Result;

use super::estimate::{has_loop, network, products, roofline};
use super::facts::{Facts, facts};
use super::report::{Alternative, Pace, Report};
use super::target::Machine;
use crate::config::{ComputeDtype, Mesh, RunConfig};
use crate::graph::block::Lowering;
use crate::models;
use crate::programs::Program;
use crate::programs::train_step::{self, TrainStep, Views};

/// Compiles a step, whose mesh is all of the machine, and reports. Where its
/// lowering does not fit, those that need less memory are tried.
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
    for lowering in models::lighter(&step.config.model, step.lowering) {
        if report.fits || tried.last().is_some_and(|last: &Alternative| last.fits) {
            break;
        }
        tracing::info!("it does not fit; trying lowering={}", lowering.name());
        let other = self::report(machine, &TrainStep { lowering, ..*step }, price)?;
        if is_open {
            tried.push(Alternative::of(&report));
            report = other;
        } else {
            tried.push(Alternative::of(&other));
        }
    }
    report.alternatives = tried;
    Ok(report)
}

/// Compiles a step and reports.
///
/// # Errors
/// The compiler's, except that the program does not fit.
pub fn report(machine: &Machine, step: &TrainStep, price: Option<f64>) -> Result<Report> {
    let config = step.config;
    let program = train_step::build(step)?;
    let facts = facts(machine, &program.text())?;
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
        fits: fits(machine, &facts),
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
            Some(_) => "the compiler's list of the largest allocations",
        },
        refusal: facts.refusal,
        collectives: facts.collectives,
        collectives_by_scope: facts.places,
        biggest_buffers: facts.biggest,
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
fn fits(machine: &Machine, facts: &Facts) -> bool {
    let there = machine.usable_memory();
    let fits = |memory: u64| there == 0 || memory <= there;
    facts.refusal.is_none() && facts.memory.is_none_or(|memory| fits(memory.total()))
}

/// The program without what is computed again to save memory.
fn computed_once(step: &TrainStep) -> Result<Program> {
    let config = RunConfig {
        accumulate: 1,
        ..step.config.clone()
    };
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

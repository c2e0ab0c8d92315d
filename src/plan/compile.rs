//! Compiling a run's step for a target, and collecting what is known then.

use std::time::Instant;

use anyhow::Result;

use super::buffers::biggest;
use super::collectives::{Place, by_kind, by_place, collectives};
use super::estimate::{has_loop, network, products, roofline};
use super::refusal;
use super::report::{Alternative, LISTED, Pace, Report};
use super::target::{Machine, Told};
use crate::config::{ComputeDtype, RunConfig};
use crate::graph::block::Lowering;
use crate::pjrt::{self, Code, CompileOptions, HloText, export_hlo};
use crate::programs::Program;
use crate::programs::train_step::{self, TrainStep, Views};

/// The pass after whose end collectives still have the names of what needs
/// them: a filter for [`export_hlo`].
pub const AFTER_PARTITIONING: &str = "spmd-partitioning";

/// The program's HLO right after partitioning, of those dumped with
/// [`AFTER_PARTITIONING`].
pub fn partitioned(hlo: &HloText) -> Option<&str> {
    // `0001.xla-partitioner.after_tpu-spmd-partitioning.before_dce`
    let after = |(name, _): &&(String, String)| {
        let (_, passes) = name.split_once(".after_").unwrap_or_default();
        let pass = passes.split('.').next().unwrap_or_default();
        pass.ends_with(AFTER_PARTITIONING)
    };
    hlo.passes.iter().find(after).map(|(_, text)| text.as_str())
}

/// Compiles a step, whose mesh is all of the machine, and reports. Where it
/// does not fit, tries the lowerings that need less memory.
///
/// # Errors
/// The compiler's, except that the program does not fit.
pub fn compile(machine: &Machine, step: &TrainStep, price: Option<f64>) -> Result<Report> {
    let mut report = one(machine, step, price)?;
    if report.fits {
        return Ok(report);
    }
    let lighter = match step.lowering {
        Lowering::Unrolled => &[Lowering::Remat, Lowering::Scan][..],
        Lowering::Remat => &[Lowering::Scan],
        Lowering::Scan => &[],
    };
    for &lowering in lighter {
        let name = name(lowering);
        tracing::info!("it does not fit; trying lowering={name}");
        let other = one(machine, &TrainStep { lowering, ..*step }, None)?;
        report.alternatives.push(Alternative {
            setting: format!("lowering={name}"),
            fits: other.fits,
            temp_bytes: other.temp_bytes,
        });
        if other.fits {
            break;
        }
    }
    Ok(report)
}

fn name(lowering: Lowering) -> &'static str {
    match lowering {
        Lowering::Unrolled => "unrolled",
        Lowering::Remat => "remat",
        Lowering::Scan => "scan",
    }
}

fn one(machine: &Machine, step: &TrainStep, price: Option<f64>) -> Result<Report> {
    let config = step.config;
    let program = train_step::build(step)?;
    let text = program.text();
    let options = CompileOptions {
        num_partitions: machine.devices,
        ..CompileOptions::default()
    };
    let start = Instant::now();
    let compiled = export_hlo(&options, Some(AFTER_PARTITIONING), |options| {
        machine.compile(&text, options)
    });
    let compile_seconds = start.elapsed().as_secs_f64();
    let (told, hlo, refusal) = match compiled {
        Ok((told, hlo)) => (Some(told), Some(hlo), None),
        Err(error) => match error.downcast_ref::<pjrt::Error>() {
            Some(refusal) if refusal.code() == Some(Code::RESOURCE_EXHAUSTED) => {
                (None, None, Some(refusal.to_string()))
            }
            _ => return Err(error),
        },
    };
    let share = share_of_one_device(step, machine.devices)?;
    let unrolled = TrainStep {
        lowering: Lowering::Unrolled,
        ..*step
    };
    let model = match step.lowering {
        Lowering::Unrolled => products(&program.graph),
        _ => products(&train_step::build(&unrolled)?.graph),
    };
    let all = products(&program.graph);
    let per_device = |flops: u64| flops as f64 / machine.devices as f64;
    let model_flops = per_device(model.bf16_flops + model.f32_flops);
    let hardware_flops = match config.model.compute_dtype {
        ComputeDtype::Bf16 => machine.hardware.bf16_flops,
        ComputeDtype::F32 => machine.hardware.f32_flops,
    };
    let refused = refusal.as_deref().map(refusal::read).unwrap_or_default();
    let memory = told.as_ref().and_then(|told| told.memory);
    let cost = |key: &str| told.as_ref()?.costs.as_ref()?.get(key).copied();
    let loops = has_loop(&program.graph);
    let estimated_seconds = cost("optimal_seconds").filter(|s| !loops && *s > 0.0);
    let roofline_seconds = roofline(&machine.hardware, &share.graph);
    let collectives_now = hlo
        .as_ref()
        .map(|hlo| collectives(&hlo.after_optimizations));
    let totals = collectives_now.as_deref().map(by_kind);
    let scoped: Option<Vec<Place>> = hlo
        .as_ref()
        .and_then(|hlo| Some(by_place(&collectives(partitioned(hlo)?))));
    Ok(Report {
        target: machine.target.to_string(),
        platform: machine.platform.clone(),
        device_kind: machine.device_kind.clone(),
        devices: machine.devices,
        hardware: machine.hardware,
        program: described(step),
        batch: config.batch,
        lowering: name(step.lowering).to_owned(),
        fits: told.as_ref().is_some_and(|told| fits(machine, told)),
        argument_bytes: memory.map(|m| m.argument_bytes),
        output_bytes: memory.map(|m| m.output_bytes),
        alias_bytes: memory.map(|m| m.alias_bytes),
        temp_bytes: memory.map(|m| m.temp_bytes),
        generated_code_bytes: memory.map(|m| m.generated_code_bytes),
        peak_bytes: memory.and_then(|m| m.peak_bytes),
        used_bytes: refused.used_bytes,
        capacity_bytes: refused.capacity_bytes,
        refusal: refusal.map(|words| words.lines().next().unwrap_or_default().to_owned()),
        estimated_seconds,
        flops: cost("flops"),
        bytes_accessed: cost("bytes accessed"),
        matmul_flops: per_device(all.bf16_flops + all.f32_flops),
        model_flops,
        roofline_seconds,
        interconnect_seconds: totals
            .as_ref()
            .and_then(|totals| network(&machine.hardware, machine.devices, totals)),
        collectives: totals,
        collectives_by_scope: scoped,
        biggest_buffers: match &hlo {
            Some(hlo) => biggest(&hlo.after_optimizations, LISTED),
            None => refused.largest,
        },
        buffers_from: match hlo {
            Some(_) => {
                "results of the optimised HLO's instructions, without padding; not all live at once"
            }
            None => "the compiler's list of the largest allocations",
        },
        alternatives: Vec::new(),
        compile_seconds,
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
fn fits(machine: &Machine, told: &Told) -> bool {
    let Some(memory) = told.memory else {
        return true;
    };
    let results = memory.output_bytes.saturating_sub(memory.alias_bytes);
    let used = memory.argument_bytes + results + memory.temp_bytes + memory.generated_code_bytes;
    machine.hardware.memory == 0 || used <= machine.hardware.memory
}

/// One device's part as a program of its own. Only the loss sees more than
/// that: its keys are those of all.
fn share_of_one_device(step: &TrainStep, devices: usize) -> Result<Program> {
    let config = RunConfig {
        batch: (step.config.batch / devices).max(1),
        mesh: crate::config::Mesh { data: 1 },
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

//! What to lower where the devices' memory was full.

use anyhow::Error;

use crate::config::{Attention, ComputeDtype, OptimizerSharding, RunConfig};
use crate::graph::block::Lowering;
use crate::models;
use crate::pjrt::{self, Client, Code};

/// A step that was compiled, and the devices it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub lowering: Lowering,
    /// What the compiled step takes of a device, and what the plugin may take
    /// there, bytes; none where the plugin does not tell.
    pub needs: Option<u64>,
    pub limit: Option<u64>,
    pub is_gpu: bool,
}

impl Footprint {
    /// Of a step that was not compiled.
    pub fn unknown(client: &Client, lowering: Lowering) -> Self {
        Self {
            lowering,
            needs: None,
            limit: None,
            is_gpu: matches!(client.platform_name(), "cuda" | "rocm"),
        }
    }
}

/// `error` with what to lower, if it is that memory was full; else as it is.
pub fn with_advice(error: Error, config: &RunConfig, footprint: &Footprint) -> Error {
    let is_full = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<pjrt::Error>();
        cause.is_some_and(|cause| cause.code() == Some(Code::RESOURCE_EXHAUSTED))
    });
    match is_full {
        true => error.context(advice(config, footprint)),
        false => error,
    }
}

fn advice(config: &RunConfig, footprint: &Footprint) -> String {
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let mut words = "the devices' memory is full".to_owned();
    match (footprint.needs, footprint.limit) {
        (Some(needs), Some(limit)) => {
            words += &format!(
                ": the step takes {} of each, and may take {}",
                gib(needs),
                gib(limit)
            );
        }
        (Some(needs), None) => words += &format!(": the step takes {} of each", gib(needs)),
        _ => {}
    }
    words += ". What takes less, the cheapest first:";
    for change in changes(config, footprint) {
        words += "\n    ";
        words += &change;
    }
    words + "\n  (`xla-moco plan --config C --target T` finds the fastest settings that fit)"
}

fn changes(config: &RunConfig, footprint: &Footprint) -> Vec<String> {
    let mut all = Vec::new();
    let share = config.gpu.memory_fraction.unwrap_or(0.75);
    if footprint.is_gpu && share < 0.9 {
        all.push(format!(
            "--set gpu.memory_fraction=0.92 (is {share}), if no other program uses the GPU"
        ));
    }
    let plain = config
        .model
        .vit()
        .filter(|vit| vit.attention == Attention::Plain)
        .map(|vit| vit.dim / vit.heads)
        .filter(|width| width.is_multiple_of(8) && *width <= 128);
    if footprint.is_gpu && config.model.compute_dtype == ComputeDtype::Bf16 && plain.is_some() {
        all.push("--set model.attention=fused (is plain), on NVIDIA's from Ampere on".to_owned());
    }
    if config.mesh.data > 1 && config.optimizer_sharding == OptimizerSharding::Replicated {
        all.push("--set optimizer_sharding=zero1 (is replicated)".to_owned());
    }
    if let Some(lighter) = models::lighter(&config.model, footprint.lowering).next() {
        all.push(format!(
            "--set lowering={} (is {})",
            lighter.name(),
            footprint.lowering.name()
        ));
    }
    let more = (2..=64).map(|times| RunConfig {
        accumulate: config.accumulate * times,
        ..config.clone()
    });
    let divides = |c: &RunConfig| c.batch.is_multiple_of(c.accumulate * c.mesh.data);
    let mut exact = more.filter(|c| divides(c) && models::check_accumulate(c).is_ok());
    if let Some(chunked) = exact.next() {
        all.push(format!(
            "--set accumulate={} (is {}): the same batch in chunks",
            chunked.accumulate, config.accumulate
        ));
    }
    all.push(format!(
        "more --devices (are {}), or a smaller batch (is {})",
        config.mesh.data, config.batch
    ));
    all
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    fn config(arch: &str, devices: usize) -> RunConfig {
        RunConfig::from_value(json!({
            "batch": 64, "mesh": {"data": devices}, "model": {"arch": arch},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1}, "schedule": {"epochs": 10},
        }))
        .unwrap()
    }

    fn full() -> Error {
        let error = pjrt::Error::Plugin {
            call: "PJRT_LoadedExecutable_Execute",
            code: Code::RESOURCE_EXHAUSTED,
            message: "Out of memory while trying to allocate 17179869184 bytes.".to_owned(),
        };
        Error::new(error).context("step 1 failed")
    }

    const GPU: Footprint = Footprint {
        lowering: Lowering::Unrolled,
        needs: Some(3 << 30),
        limit: Some(2 << 30),
        is_gpu: true,
    };

    #[test]
    fn a_full_memory_is_told_with_each_key_that_lowers_it() {
        let words = with_advice(full(), &config("vit_small", 4), &GPU).to_string();
        for part in [
            "takes 3.00 GiB of each, and may take 2.00 GiB",
            "gpu.memory_fraction=0.92 (is 0.75)",
            "optimizer_sharding=zero1",
            "(is unrolled)",
            "accumulate=2 (is 1)",
            "more --devices (are 4), or a smaller batch (is 64)",
        ] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
    }

    #[test]
    fn only_what_helps_here_is_named() {
        let elsewhere = Footprint {
            lowering: Lowering::Scan,
            needs: None,
            limit: None,
            is_gpu: false,
        };
        let words = with_advice(full(), &config("resnet50", 1), &elsewhere).to_string();
        // BN forbids chunks; one device has nothing to split.
        for part in ["memory_fraction", "zero1", "accumulate=", "GiB"] {
            assert!(!words.contains(part), "{part} is in {words}");
        }
        let other = with_advice(anyhow!("the device is gone"), &config("vit_small", 1), &GPU);
        assert_eq!(other.to_string(), "the device is gone");
    }
}

//! What devices can do by their makers' data sheets: what our own estimates,
//! the roofline and the time on the network, divide by.

use serde::Serialize;

use crate::config::ComputeDtype;

/// Of one device, as PJRT counts them: a TPU v2, v3, v4 or v7 chip has two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hardware {
    /// Operations a second of matrix products of bf16 numbers.
    pub bf16_flops: f64,
    /// The same of f32 numbers, as our programs ask for them: on a TPU by six
    /// passes in bf16.
    pub f32_flops: f64,
    /// Memory, bytes. Of a TPU it is what the chip has; its compiler keeps
    /// about 3% for itself.
    pub memory: u64,
    /// Bytes a second to and from it.
    pub memory_bandwidth: f64,
    /// Bytes a second to other devices over all links, one way; the chip's,
    /// shared by its devices. None where devices share their memory.
    pub network_bandwidth: Option<f64>,
}

const GIB: u64 = 1 << 30;

/// A chip of `devices` devices: TFLOP/s in bf16, GiB and GB/s of memory, GB/s
/// of each of its links one way, links.
const fn tpu(devices: u64, tflops: f64, gib: u64, memory: f64, link: f64, links: u64) -> Hardware {
    let share = devices as f64;
    Hardware {
        bf16_flops: tflops * 1e12 / share,
        f32_flops: tflops * 1e12 / 6.0 / share,
        memory: gib * GIB / devices,
        memory_bandwidth: memory * 1e9 / share,
        network_bandwidth: Some(link * 1e9 * links as f64 / share),
    }
}

/// TPU generations by libtpu's names: cloud.google.com/tpu/docs, and for the
/// links of v2 to v4 Jouppi et al. 2023, Table 4.
pub(super) const TPUS: &[(&str, Hardware)] = &[
    ("v2", tpu(2, 46.0, 16, 700.0, 62.0, 4)),
    ("v3", tpu(2, 123.0, 32, 900.0, 70.0, 4)),
    ("v4", tpu(2, 275.0, 32, 1228.0, 50.0, 6)),
    ("v5e", tpu(1, 197.0, 16, 819.0, 50.0, 4)),
    ("v5p", tpu(1, 459.0, 95, 2765.0, 100.0, 6)),
    ("v6e", tpu(1, 918.0, 32, 1640.0, 100.0, 4)),
    ("tpu7x", tpu(2, 2307.0, 192, 7380.0, 100.0, 6)),
];

/// A GPU that can be compiled for: XLA's own description of it, as text of
/// its `GpuTargetConfigProto`, and what its maker says.
pub(super) struct Gpu {
    pub name: &'static str,
    pub hardware: Hardware,
    /// Lines that differ among these GPUs.
    device: &'static str,
    description: &'static str,
}

impl Gpu {
    pub fn target_config(&self) -> String {
        format!(
            "gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 \
             shared_memory_per_block: 49152 threads_per_core_limit: 2048 \
             block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 \
             registers_per_core_limit: 65536 registers_per_block_limit: 65536 {} }} \
             platform_name: \"CUDA\" dnn_version_info {{ major: 9 minor: 8 patch: 0 }} \
             device_description_str: \"{}\"",
            self.device, self.description
        )
    }
}

/// NVIDIA's data sheets: dense bf16, f32 without TF32, NVLink one way.
pub(super) const GPUS: &[Gpu] = &[
    Gpu {
        name: "a100",
        hardware: Hardware {
            bf16_flops: 312e12,
            f32_flops: 19.5e12,
            memory: 80 * GIB,
            memory_bandwidth: 2039e9,
            network_bandwidth: Some(300e9),
        },
        device: "shared_memory_per_core: 167936 core_count: 108 fpus_per_core: 64 \
                 memory_bandwidth: 2039000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41 \
                 device_memory_size: 85899345920 shared_memory_per_block_optin: 166912 \
                 cuda_compute_capability { major: 8 }",
        description: "NVIDIA A100-SXM4-80GB",
    },
    Gpu {
        name: "h100",
        hardware: Hardware {
            bf16_flops: 989e12,
            f32_flops: 67e12,
            memory: 80 * GIB,
            memory_bandwidth: 3352e9,
            network_bandwidth: Some(450e9),
        },
        device: "shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128 \
                 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 \
                 device_memory_size: 85899345920 shared_memory_per_block_optin: 232448 \
                 cuda_compute_capability { major: 9 }",
        description: "NVIDIA H100 80GB HBM3",
    },
    Gpu {
        name: "h200",
        hardware: Hardware {
            bf16_flops: 989e12,
            f32_flops: 67e12,
            memory: 141 * 1_000_000_000,
            memory_bandwidth: 4800e9,
            network_bandwidth: Some(450e9),
        },
        device: "shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128 \
                 memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 \
                 device_memory_size: 141000000000 shared_memory_per_block_optin: 232448 \
                 cuda_compute_capability { major: 9 }",
        description: "NVIDIA H200",
    },
];

/// GPUs beside [`GPUS`] by a part of the name that their driver gives them, and
/// their peak in bf16 with f32 sums, dense, TFLOP/s: NVIDIA's data sheets and,
/// for GeForce and RTX, its architecture white papers. Longer names first.
const PEAKS: &[(&str, f64)] = &[
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200", 989.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("A30", 165.0),
    ("A40", 149.7),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
    ("RTX 3090", 71.0),
    ("RTX 4090", 165.2),
];

/// TPUs by the names that PJRT gives their devices.
const TPU_KINDS: &[(&str, &str)] = &[
    ("TPU v2", "v2"),
    ("TPU v3", "v3"),
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5e", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
    ("TPU v6e", "v6e"),
    ("TPU7x", "tpu7x"),
];

/// What a device can do at most with matrix products of a type, FLOP/s, by its
/// data sheet; none where there is no sheet, as for CPUs, and for f32 on a GPU,
/// of which it depends on the compiler's choice of TF32.
pub fn peak_flops(device_kind: &str, dtype: ComputeDtype) -> Option<f64> {
    let tpu = TPU_KINDS.iter().find(|(kind, _)| *kind == device_kind);
    if let Some((_, generation)) = tpu {
        let (_, hardware) = TPUS.iter().find(|(name, _)| name == generation)?;
        return Some(match dtype {
            ComputeDtype::Bf16 => hardware.bf16_flops,
            ComputeDtype::F32 => hardware.f32_flops,
        });
    }
    let words: Vec<&str> = device_kind.split([' ', '-']).collect();
    let holds = |name: &str| {
        let name: Vec<&str> = name.split(' ').collect();
        words.windows(name.len()).any(|part| part == name)
    };
    let found = PEAKS.iter().find(|(name, _)| holds(name));
    let is_bf16 = dtype == ComputeDtype::Bf16;
    found.filter(|_| is_bf16).map(|(_, tflops)| tflops * 1e12)
}

/// A share of this machine's processor. There is no data sheet to ask: 40
/// GFLOP/s and 10 GB/s a core is what a server core with AVX2 did when XLA's
/// products were measured.
pub(super) fn cpu(devices: usize, cores: usize, memory: u64) -> Hardware {
    let share = cores as f64 / devices as f64;
    Hardware {
        bf16_flops: 40e9 * share,
        f32_flops: 40e9 * share,
        memory: memory / devices as u64,
        memory_bandwidth: 10e9 * share,
        network_bandwidth: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_found_by_the_names_that_plugins_give() {
        let bf16 = |kind| peak_flops(kind, ComputeDtype::Bf16).map(|peak| peak / 1e12);
        assert_eq!(bf16("NVIDIA H100 80GB HBM3"), Some(989.0));
        assert_eq!(bf16("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(bf16("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(bf16("NVIDIA L40S"), Some(362.05));
        assert_eq!(bf16("NVIDIA A1000 Laptop GPU"), None);
        assert_eq!(bf16("TPU v3"), Some(61.5));
        assert_eq!(bf16("TPU v5 lite"), Some(197.0));
        assert_eq!(bf16("cpu"), None);
        assert_eq!(peak_flops("NVIDIA H100 80GB HBM3", ComputeDtype::F32), None);
    }

    #[test]
    fn gpus_to_compile_for_and_gpus_to_run_on_have_the_same_peak() {
        for gpu in GPUS {
            let peak = peak_flops(gpu.description, ComputeDtype::Bf16);
            assert_eq!(peak, Some(gpu.hardware.bf16_flops), "{}", gpu.name);
        }
    }
}

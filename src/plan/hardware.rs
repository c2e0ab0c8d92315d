//! What devices can do by their makers' data sheets: what our own estimates,
//! the roofline and the time on the network, divide by.

use serde::Serialize;

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

//! The plugins that can be fetched: one table, pinned by hash.

/// A plugin that is known to work, as its publisher's wheels on PyPI.
#[derive(Debug)]
pub struct KnownPlugin {
    /// What `--pjrt` calls it.
    pub target: &'static str,
    /// The operating system and processor it is built for, as in
    /// `std::env::consts`.
    pub os: &'static str,
    pub arch: &'static str,
    /// The plugin's wheel, then what must lie beside it.
    pub wheels: &'static [Wheel],
    /// The plugin's path in its wheel.
    pub library: &'static str,
    /// The PJRT C API that it speaks; none where we could not load it.
    pub api: Option<(i32, i32)>,
    pub licence: &'static str,
    /// What to know before it is used.
    pub note: &'static str,
}

#[derive(Debug)]
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    pub file: &'static str,
    pub sha256: &'static str,
    /// Bytes to download.
    pub size: u64,
}

impl KnownPlugin {
    /// The package that carries the plugin; the name by which one of several
    /// for the same target is told apart.
    pub fn package(&self) -> &'static str {
        self.wheels[0].package
    }

    pub fn version(&self) -> &'static str {
        self.wheels[0].version
    }

    /// Bytes to download in all.
    pub fn download_size(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.size).sum()
    }

    /// The same in words.
    pub fn download_in_words(&self) -> String {
        format!("{:.0} MB", self.download_size() as f64 / 1e6)
    }

    pub fn fits_this_machine(&self) -> bool {
        self.os == std::env::consts::OS && self.arch == std::env::consts::ARCH
    }

    /// Name of its folder in the cache. It changes with any pinned hash, so a
    /// folder's name says what is in it.
    pub fn folder(&self) -> String {
        let hashes: String = self.wheels.iter().map(|w| &w.sha256[..8]).collect();
        format!("{}-{}-{hashes}", self.package(), self.version())
    }
}

/// Where several serve a target on one machine, the first is the default and
/// the others are its fallback.
pub const KNOWN: &[KnownPlugin] = &[
    KnownPlugin {
        target: "cpu",
        os: "linux",
        arch: "x86_64",
        wheels: &[Wheel {
            package: "lammps-jax-pjrt-cpu",
            version: "0.11.2",
            file: "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
            size: 62_711_338,
        }],
        library: "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so",
        api: Some((0, 115)),
        licence: "Apache-2.0",
        note: "the faster CPU plugin; no cost analysis",
    },
    KnownPlugin {
        target: "cpu",
        os: "linux",
        arch: "x86_64",
        wheels: &[Wheel {
            package: "xla-cpu-pjrt",
            version: "0.0.1",
            file: "xla_cpu_pjrt-0.0.1-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
            size: 63_461_052,
        }],
        library: "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
        api: Some((0, 81)),
        licence: "none stated (by The OpenXLA Authors, whose project is Apache-2.0)",
        note: "with cost analysis",
    },
    KnownPlugin {
        target: "cpu",
        os: "linux",
        arch: "aarch64",
        wheels: &[Wheel {
            package: "xla-cpu-pjrt",
            version: "0.0.1",
            file: "xla_cpu_pjrt-0.0.1-py3-none-manylinux_2_27_aarch64.whl",
            sha256: "8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9",
            size: 49_514_947,
        }],
        library: "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
        api: Some((0, 81)),
        licence: "none stated (by The OpenXLA Authors, whose project is Apache-2.0)",
        note: "with cost analysis",
    },
    KnownPlugin {
        target: "gpu",
        os: "linux",
        arch: "x86_64",
        wheels: &[
            Wheel {
                package: "jax-cuda13-pjrt",
                version: "0.12.0.1",
                file: "jax_cuda13_pjrt-0.12.0.1-py3-none-manylinux_2_27_x86_64.whl",
                sha256: "5899bb6177eda86ea532afb9a26794f2bdd04966f6a01f9028266b16c2b6cf90",
                size: 134_922_808,
            },
            Wheel {
                package: "nvidia-cuda-nvcc",
                version: "13.5.37",
                file: "nvidia_cuda_nvcc-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
                size: 47_028_279,
            },
            Wheel {
                package: "nvidia-nvvm",
                version: "13.5.37",
                file: "nvidia_nvvm-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                sha256: "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070",
                size: 75_141_406,
            },
        ],
        library: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
        api: Some((0, 116)),
        licence: "Apache-2.0; ptxas and libdevice: NVIDIA Proprietary Software",
        note: "running also needs CUDA 13, cuDNN and NCCL in the library path",
    },
    KnownPlugin {
        target: "rocm",
        os: "linux",
        arch: "x86_64",
        wheels: &[Wheel {
            package: "jax-rocm7-pjrt",
            version: "0.12.0",
            file: "jax_rocm7_pjrt-0.12.0-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "4551d0714523355f2946ca1958c3f584e95661e467a641d36b726f718a1c7934",
            size: 133_415_872,
        }],
        library: "jax_plugins/xla_rocm7/xla_rocm_plugin.so",
        api: None,
        licence: "Apache-2.0",
        note: "needs ROCm 7 in the library path; never run by us",
    },
    KnownPlugin {
        target: "tpu",
        os: "linux",
        arch: "x86_64",
        wheels: &[Wheel {
            package: "libtpu",
            version: "0.0.52",
            file: "libtpu-0.0.52-cp311-cp311-manylinux_2_31_x86_64.whl",
            sha256: "f5e2e596eaea9357fbb5a6755a7a9007c6ab75bfde4a55191b03eff402971140",
            size: 137_064_406,
        }],
        library: "libtpu/libtpu.so",
        api: Some((0, 117)),
        licence: "Google Cloud Platform Terms of Service",
        note: "also compiles for TPUs that are not there",
    },
];

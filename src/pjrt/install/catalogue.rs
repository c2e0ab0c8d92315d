//! The plugins that can be fetched: one table, pinned by hash.

use sha2::{Digest, Sha256};

use crate::hash::hex;

/// A plugin that is known to work, as its publisher's wheels on PyPI.
#[derive(Debug)]
pub struct KnownPlugin {
    /// What `--pjrt` calls it.
    pub target: &'static str,
    /// The operating system and processor it is built for, as in
    /// `std::env::consts`.
    pub os: &'static str,
    pub arch: &'static str,
    /// The plugin's wheel, then what must lie beside it to compile.
    pub wheels: &'static [Wheel],
    /// What else must lie beside it to run, where that is more.
    pub runtime: &'static [Wheel],
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

/// What a plugin is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// To run programs on devices.
    #[default]
    Run,
    /// To compile programs for devices that need not be there.
    Compile,
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

    /// The wheels that serve a need.
    pub fn wheels_for(&self, need: Need) -> impl Iterator<Item = &'static Wheel> {
        let runtime = match need {
            Need::Run => self.runtime,
            Need::Compile => &[],
        };
        self.wheels.iter().chain(runtime)
    }

    /// Bytes to download in all.
    pub fn download_size(&self, need: Need) -> u64 {
        self.wheels_for(need).map(|wheel| wheel.size).sum()
    }

    /// The same in words.
    pub fn download_in_words(&self, need: Need) -> String {
        in_words(self.download_size(need))
    }

    pub fn fits_this_machine(&self) -> bool {
        self.os == std::env::consts::OS && self.arch == std::env::consts::ARCH
    }

    /// Name of its folder in the cache. It changes with any pinned hash, so a
    /// folder's name says what is in it.
    pub fn folder(&self, need: Need) -> String {
        let (package, version) = (self.package(), self.version());
        if need == Need::Compile || self.runtime.is_empty() {
            let hashes: String = self.wheels.iter().map(|w| &w.sha256[..8]).collect();
            return format!("{package}-{version}-{hashes}");
        }
        let mut hash = Sha256::new();
        for wheel in self.wheels_for(need) {
            hash.update(wheel.sha256);
        }
        format!("{package}-{version}-run-{}", &hex(&hash.finalize())[..16])
    }
}

/// Bytes in words.
pub fn in_words(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// CUDA as the extra `with-cuda` of jax-cuda13-plugin 0.12.0.1 lists it, without
/// what the plugin's own row has.
const CUDA_13: &[Wheel] = &[
    Wheel {
        package: "nvidia-cublas",
        version: "13.10.0.20",
        file: "nvidia_cublas-13.10.0.20-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        sha256: "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
        size: 444_289_903,
    },
    Wheel {
        package: "nvidia-cudnn-cu13",
        version: "9.28.1.4",
        file: "nvidia_cudnn_cu13-9.28.1.4-py3-none-manylinux_2_27_x86_64.whl",
        sha256: "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec",
        size: 516_817_937,
    },
    Wheel {
        package: "nvidia-nccl-cu13",
        version: "2.32.3",
        file: "nvidia_nccl_cu13-2.32.3-py3-none-manylinux_2_27_x86_64.whl",
        sha256: "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3",
        size: 305_100_071,
    },
    Wheel {
        package: "nvidia-cusolver",
        version: "12.4.1.2",
        file: "nvidia_cusolver-12.4.1.2-py3-none-manylinux_2_27_x86_64.whl",
        sha256: "b3b8e02fd2f2df869369af075dc3a179d43f6f7b85e94632a7dce556697be044",
        size: 260_003_940,
    },
    Wheel {
        package: "nvidia-cusparse",
        version: "12.9.4.2",
        file: "nvidia_cusparse-12.9.4.2-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "072667e58c851a318738f5527a12eb225cbf058803f2ea451c722d8cf8edddec",
        size: 230_422_857,
    },
    Wheel {
        package: "nvidia-nvshmem-cu13",
        version: "3.8.0",
        file: "nvidia_nvshmem_cu13-3.8.0-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "81a4d1f666543e6d34df6d2ff940c7da1435e34e186aab6f3c2b48861b64ef38",
        size: 182_092_449,
    },
    Wheel {
        package: "nvidia-cufft",
        version: "12.5.0.14",
        file: "nvidia_cufft-12.5.0.14-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad",
        size: 165_072_555,
    },
    Wheel {
        package: "nvidia-cuda-nvrtc",
        version: "13.5.37",
        file: "nvidia_cuda_nvrtc-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        sha256: "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
        size: 58_185_930,
    },
    Wheel {
        package: "nvidia-nvjitlink",
        version: "13.5.37",
        file: "nvidia_nvjitlink-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        sha256: "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
        size: 46_642_491,
    },
    Wheel {
        package: "nvidia-cuda-cupti",
        version: "13.5.25",
        file: "nvidia_cuda_cupti-13.5.25-py3-none-manylinux_2_25_x86_64.whl",
        sha256: "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650",
        size: 12_592_974,
    },
    Wheel {
        package: "nvidia-cuda-runtime",
        version: "13.5.37",
        file: "nvidia_cuda_runtime-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
        size: 2_504_024,
    },
];

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
        runtime: &[],
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
        runtime: &[],
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
        runtime: &[],
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
        runtime: CUDA_13,
        library: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
        api: Some((0, 116)),
        licence: "Apache-2.0; ptxas, libdevice and CUDA's libraries: NVIDIA Proprietary Software",
        note: "runs with a driver of 580 or later; compiles for GPUs that are not there",
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
        runtime: &[],
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
        runtime: &[],
        library: "libtpu/libtpu.so",
        api: Some((0, 117)),
        licence: "Google Cloud Platform Terms of Service",
        note: "also compiles for TPUs that are not there",
    },
];

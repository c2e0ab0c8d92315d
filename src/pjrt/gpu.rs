//! What a GPU's plugin needs beside itself: NVIDIA's libraries, ptxas, a driver;
//! and words for what is missing.
//!
//! The plugins of JAX load CUDA's libraries when they need them, by name. They
//! look where their wheels would be: at `../../nvidia/cu13/lib` and the like
//! from their own folder, then where the system looks. Not all are found that
//! way, and one library's own dependencies are not. So they are loaded
//! beforehand, as JAX does: what is loaded is found by its name.

use std::path::{Path, PathBuf};

use super::ffi;

/// The libraries that JAX loads before its plugin, in its order: the folder of
/// the wheel with CUDA 12, the library then, and with CUDA 13.
const LIBRARIES: [(&str, &str, &str); 11] = [
    ("cuda_runtime", "libcudart.so.12", "libcudart.so.13"),
    ("cuda_nvrtc", "libnvrtc.so.12", "libnvrtc.so.13"),
    ("nvjitlink", "libnvJitLink.so.12", "libnvJitLink.so.13"),
    ("cublas", "libcublasLt.so.12", "libcublasLt.so.13"),
    ("cublas", "libcublas.so.12", "libcublas.so.13"),
    ("cuda_cupti", "libcupti.so.12", "libcupti.so.13"),
    ("cusparse", "libcusparse.so.12", "libcusparse.so.12"),
    ("cusolver", "libcusolver.so.11", "libcusolver.so.12"),
    ("cufft", "libcufft.so.11", "libcufft.so.12"),
    ("nccl", "libnccl.so.2", "libnccl.so.2"),
    ("cudnn", "libcudnn.so.9", "libcudnn.so.9"),
];

/// A library of which several GPUs need one another's memory only.
const NVSHMEM: &str = "nvidia/nvshmem/lib/libnvshmem_host.so.3";

/// The oldest packages that the plugin of JAX 0.12 for CUDA 13 works with: its
/// extra `with-cuda`.
const OLDEST_13: [(&str, &str); 7] = [
    ("nvidia_cublas", "13.0.0.19"),
    ("nvidia_cuda_runtime", "13.0.48"),
    ("nvidia_cudnn_cu13", "9.12.0.46"),
    ("nvidia_cufft", "12.0.0.15"),
    ("nvidia_cusolver", "12.0.3.29"),
    ("nvidia_cusparse", "12.6.2.49"),
    ("nvidia_nccl_cu13", "2.27.7"),
];

/// The oldest drivers for a major version of CUDA: NVIDIA's release notes,
/// "Minimum required driver version for CUDA minor version compatibility".
const OLDEST_DRIVERS: [(u32, &str); 2] = [(13, "580.65.06"), (12, "525.60.13")];

/// A plugin for NVIDIA's GPUs, and what lies beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolkit {
    /// The folder of packages that the plugin is in.
    packages: PathBuf,
    /// Of CUDA; none where the plugin's folder does not tell.
    major: Option<u32>,
}

impl Toolkit {
    /// None for a plugin of another kind.
    pub fn of(plugin: &Path) -> Option<Self> {
        let name = plugin.file_name()?.to_str()?;
        let is_cuda = name.contains("cuda") || name == "pjrt_c_api_gpu_plugin.so";
        let folder = plugin.parent()?;
        let major = || {
            let name = folder.file_name()?.to_str()?;
            name.strip_prefix("xla_cuda")?.parse().ok()
        };
        is_cuda.then(|| Self {
            packages: folder.join("../.."),
            major: major(),
        })
    }

    /// The libraries of its own that lie beside it, in the order in which to
    /// load them.
    fn libraries(&self) -> Vec<PathBuf> {
        let both = LIBRARIES.iter().flat_map(|(folder, old, new)| {
            let of_12 = format!("nvidia/{folder}/lib/{old}");
            // CUDA itself is one folder since 13; cuDNN and NCCL stayed apart.
            let of_13 = match *folder {
                "cudnn" | "nccl" => format!("nvidia/{folder}/lib/{new}"),
                _ => format!("nvidia/cu13/lib/{new}"),
            };
            match self.major {
                Some(12) => [Some(of_12), None],
                Some(13) => [Some(of_13), None],
                _ => [Some(of_13), Some(of_12)],
            }
        });
        let all = both.flatten().chain([NVSHMEM.to_owned()]);
        all.map(|file| self.packages.join(file))
            .filter(|file| file.is_file())
            .collect()
    }

    /// Loads the libraries that lie beside the plugin. One that cannot be
    /// loaded is the plugin's to miss.
    pub(super) fn preload(&self) {
        for library in self.libraries() {
            if let Err(reason) = ffi::preload(&library) {
                tracing::debug!("{}: {reason}", library.display());
            }
        }
    }

    /// NVIDIA's assembler, without which no program compiles: beside the plugin.
    pub fn ptxas_beside(&self) -> Option<PathBuf> {
        let files = ["nvidia/cu13/bin/ptxas", "nvidia/cuda_nvcc/bin/ptxas"];
        let files = files.map(|file| self.packages.join(file));
        files.into_iter().find(|file| file.is_file())
    }

    /// The same, wherever the compiler looks for it: beside the plugin, in
    /// `xla_gpu_cuda_data_dir` of XLA_FLAGS, on the PATH, in /usr/local/cuda.
    pub fn ptxas(&self) -> Option<PathBuf> {
        let flags = std::env::var("XLA_FLAGS").unwrap_or_default();
        let given = flags
            .split_whitespace()
            .filter_map(|flag| flag.strip_prefix("--xla_gpu_cuda_data_dir="))
            .map(|folder| Path::new(folder).join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = given
            .chain(std::env::split_paths(&path))
            .chain([PathBuf::from("/usr/local/cuda/bin")]);
        self.ptxas_beside().or_else(|| {
            folders
                .map(|folder| folder.join("ptxas"))
                .find(|file| file.is_file())
        })
    }

    fn oldest_driver(&self) -> Option<&'static str> {
        let found = OLDEST_DRIVERS
            .iter()
            .find(|(major, _)| Some(*major) == self.major);
        found.map(|(_, version)| *version)
    }

    /// Whether a driver is known to be older than the plugin needs.
    pub fn driver_is_too_old(&self, driver: Option<&str>) -> bool {
        match (driver, self.oldest_driver()) {
            (Some(driver), Some(oldest)) => is_older(driver, oldest),
            _ => false,
        }
    }

    /// What is too old for the plugin, in words.
    pub fn outdated(&self, driver: Option<&str>) -> Vec<String> {
        let mut all = Vec::new();
        if self.driver_is_too_old(driver)
            && let (Some(driver), Some(major)) = (driver, self.major)
        {
            let oldest = self.oldest_driver().unwrap_or_default();
            let other = match major {
                13 => {
                    ", or install the plugin for CUDA 12 into a Python environment (pip install \
                     'jax-cuda12-plugin[with-cuda]') and activate it"
                }
                _ => "",
            };
            all.push(format!(
                "NVIDIA's driver is {driver}; CUDA {major} needs {oldest} or later: update the \
                 driver{other}"
            ));
        }
        for (package, oldest) in OLDEST_13 {
            let version = match self.major {
                Some(13) => version_of(&self.packages, package),
                _ => None,
            };
            if let Some(version) = version.filter(|version| is_older(version, oldest)) {
                all.push(format!(
                    "{package} is {version}; the plugin needs {oldest} or later: pip install \
                     '{package}>={oldest}'"
                ));
            }
        }
        all
    }
}

/// Whether a plugin is known to be one for GPUs, by its file's name.
pub fn is_of_gpus(plugin: &Path) -> bool {
    is_rocm(plugin) || Toolkit::of(plugin).is_some()
}

fn is_rocm(plugin: &Path) -> bool {
    let name = plugin.file_name().unwrap_or_default().to_string_lossy();
    name.contains("rocm")
}

/// Why a plugin may find no GPU, in words; nothing for one of another kind.
pub fn what_is_wrong(plugin: &Path) -> Vec<String> {
    if is_rocm(plugin) {
        let missing = [
            (
                "/dev/kfd",
                "AMD's driver is not loaded (there is no /dev/kfd)",
            ),
            (
                "/opt/rocm",
                "ROCm is not at /opt/rocm: is it in LD_LIBRARY_PATH?",
            ),
        ];
        let missing = missing.iter().filter(|(path, _)| !Path::new(path).exists());
        return missing.map(|(_, words)| (*words).to_owned()).collect();
    }
    let Some(toolkit) = Toolkit::of(plugin) else {
        return Vec::new();
    };
    let driver = driver_version();
    let mut all = toolkit.outdated(driver.as_deref());
    if !has_driver() {
        all.push(
            "NVIDIA's driver is not loaded (there is no /proc/driver/nvidia/version)".to_owned(),
        );
    }
    if toolkit.libraries().is_empty() {
        all.push(
            "CUDA's libraries do not lie beside the plugin: unless they are in LD_LIBRARY_PATH, \
             run `xla-moco plugins install gpu`"
                .to_owned(),
        );
    }
    all
}

/// Whether the system shows NVIDIA's driver, its own or that of the Windows that
/// it runs in.
pub fn has_driver() -> bool {
    driver_version().is_some() || Path::new("/usr/lib/wsl/lib/libcuda.so.1").exists()
}

/// The version of NVIDIA's driver, such as `580.65.06`, as the kernel has it.
pub fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    driver_in(&text).map(str::to_owned)
}

/// Of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue ...`.
fn driver_in(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| {
        let mut parts = word.split('.');
        word.contains('.') && parts.all(|part| !part.is_empty() && number(part).is_some())
    };
    line.split_whitespace().find(is_version)
}

/// The version of a package, of which the folder of its metadata tells.
pub(super) fn version_of(packages: &Path, package: &str) -> Option<String> {
    let entries = std::fs::read_dir(packages).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let rest = name.strip_prefix(package)?.strip_prefix('-')?;
        Some(rest.strip_suffix(".dist-info")?.to_owned())
    })
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// By the numbers between dots; what is no number counts as 0.
fn is_older(version: &str, than: &str) -> bool {
    let parts = |text: &str| -> Vec<u64> {
        let parts = text.split('.').map(|part| number(part).unwrap_or(0));
        parts.collect()
    };
    parts(version) < parts(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(packages: &Path, file: &str) {
        let path = packages.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    fn toolkit(packages: &Path, major: u32) -> Toolkit {
        let plugin = format!("jax_plugins/xla_cuda{major}/xla_cuda_plugin.so");
        put(packages, &plugin);
        Toolkit::of(&packages.join(plugin)).unwrap()
    }

    #[test]
    fn plugins_of_other_kinds_have_no_toolkit() {
        for other in ["libtpu.so", "a/b/pjrt_c_api_cpu_plugin.so", "/"] {
            assert_eq!(Toolkit::of(Path::new(other)), None, "{other}");
        }
        assert_eq!(what_is_wrong(Path::new("libtpu.so")), [""; 0]);
    }

    #[test]
    fn the_libraries_of_the_plugins_own_cuda_are_loaded_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cublas/lib/libcublas.so.12",
            "nvidia/nvshmem/lib/libnvshmem_host.so.3",
        ] {
            put(folder.path(), file);
        }
        let names = |major| -> Vec<String> {
            let all = toolkit(folder.path(), major).libraries().into_iter();
            all.map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let of_13 = [
            "libcudart.so.13",
            "libcublas.so.13",
            "libcudnn.so.9",
            "libnvshmem_host.so.3",
        ];
        assert_eq!(names(13), of_13);
        assert_eq!(
            names(12),
            ["libcublas.so.12", "libcudnn.so.9", "libnvshmem_host.so.3"]
        );
    }

    #[test]
    fn what_is_too_old_is_named_with_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let new = toolkit(folder.path(), 13);
        assert_eq!(new.outdated(None), [""; 0]);
        assert_eq!(new.outdated(Some("580.65.06")), [""; 0]);
        let words = new.outdated(Some("550.54.15")).concat();
        for part in ["is 550.54.15", "CUDA 13 needs 580.65.06", "cuda12"] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(
            toolkit(folder.path(), 12).outdated(Some("550.54.15")),
            [""; 0]
        );

        put(
            folder.path(),
            "nvidia_cudnn_cu13-9.8.0.87.dist-info/METADATA",
        );
        put(folder.path(), "nvidia_cublas-13.10.0.20.dist-info/METADATA");
        let words = new.outdated(None);
        assert_eq!(words.len(), 1, "{words:?}");
        assert!(words[0].starts_with("nvidia_cudnn_cu13 is 9.8.0.87; the plugin needs 9.12"));
        assert_eq!(toolkit(folder.path(), 12).outdated(None), [""; 0]);
    }

    #[test]
    fn the_kernel_tells_the_drivers_version() {
        for (text, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n\
                 GCC version:  gcc version 12.2.0\n",
                Some("550.54.15"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  \
                 (dvs-builder@U22)  Sun Jul 27 07:17:30 UTC 2025\n",
                Some("580.65.06"),
            ),
            ("GCC version:  gcc version 12.2.0\n", None),
            ("NVRM version: ...\n", None),
            ("", None),
        ] {
            assert_eq!(driver_in(text), version, "{text}");
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_older("9.8.0.87", "9.12.0.46"));
        assert!(is_older("525.60", "525.60.13"));
        assert!(!is_older("13.10.0", "13.9.1"));
        assert!(!is_older("13.0", "13.0"));
    }
}

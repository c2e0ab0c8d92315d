//! GPU plugins that are there already, in a Python environment: JAX's packages
//! lie where ours would, beside the same libraries.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Need;
use crate::pjrt::gpu;

/// A plugin among an environment's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub library: PathBuf,
    /// The folder of the environment's packages.
    packages: PathBuf,
    /// The package and its version, where the environment tells.
    package: Option<String>,
    /// Of CUDA or ROCm.
    generation: u32,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.packages.display();
        match &self.package {
            Some(package) => write!(f, "{package} in the Python packages of {folder}"),
            None => write!(f, "the Python packages of {folder}"),
        }
    }
}

/// Folders in `jax_plugins` that a target's plugin may be in, by the beginning
/// of their names, and the library in them.
fn places(target: &str) -> Option<(&'static str, &'static str)> {
    match target {
        "gpu" => Some(("xla_cuda", "xla_cuda_plugin.so")),
        "rocm" => Some(("xla_rocm", "xla_rocm_plugin.so")),
        _ => None,
    }
}

/// Whether an environment may hold a target's plugin.
pub(super) fn holds(target: &str) -> bool {
    places(target).is_some()
}

/// The plugins for `target` in some folders of packages: by the folders' order,
/// in each the newest first, save what the driver is too old for. To compile,
/// one also needs ptxas.
pub(super) fn find(target: &str, need: Need, folders: &[PathBuf]) -> Vec<Found> {
    let driver = gpu::driver_version();
    let mut found = Vec::new();
    for packages in folders {
        let mut here: Vec<Found> = plugins_in(target, packages);
        here.sort_by_key(|found| {
            let toolkit = gpu::Toolkit::of(&found.library);
            let too_new = toolkit.is_some_and(|t| t.driver_is_too_old(driver.as_deref()));
            (too_new, std::cmp::Reverse(found.generation))
        });
        here.retain(|plugin| {
            let toolkit = gpu::Toolkit::of(&plugin.library);
            let compiles = toolkit.is_none_or(|toolkit| toolkit.ptxas_beside().is_some());
            (need == Need::Run || compiles) && !found.contains(plugin)
        });
        found.append(&mut here);
    }
    found
}

fn plugins_in(target: &str, packages: &Path) -> Vec<Found> {
    let Some((beginning, library)) = places(target) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(packages.join("jax_plugins"));
    let entries = entries.into_iter().flatten().flatten();
    let folders = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let generation: u32 = name.strip_prefix(beginning)?.parse().ok()?;
        let file = entry.path().join(library);
        file.is_file().then(|| Found {
            library: file,
            packages: packages.to_owned(),
            package: package(
                packages,
                &format!("jax_{}{generation}_pjrt", &beginning[4..]),
            ),
            generation,
        })
    });
    folders.collect()
}

/// A package with its version, such as `jax_cuda13_pjrt 0.12.0.1`, of which the
/// name of its folder of metadata tells.
fn package(packages: &Path, name: &str) -> Option<String> {
    let version = gpu::version_of(packages, name)?;
    Some(format!("{name} {version}"))
}

/// Folders of packages of the Python environments that are at hand: the
/// activated one, then what `python3` looks into.
pub fn site_packages() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let mut all = of_environments(&variable);
    for folder in of_python() {
        if !all.contains(&folder) {
            all.push(folder);
        }
    }
    all
}

/// `$VIRTUAL_ENV/lib/python3.*/site-packages`, and the same of conda.
fn of_environments(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let Some(root) = variable(name).filter(|root| !root.is_empty()) else {
            continue;
        };
        let entries = std::fs::read_dir(Path::new(&root).join("lib"));
        let entries = entries.into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python"))
            .map(|entry| entry.path().join("site-packages"))
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        all.extend(folders);
    }
    all
}

/// The absolute folders in `sys.path`; none where there is no Python.
fn of_python() -> Vec<PathBuf> {
    let output = Command::new("python3")
        .args(["-c", "import sys; print('\\n'.join(sys.path))"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map_or(Vec::new(), |output| output.stdout);
    let lines = String::from_utf8_lossy(&text);
    let folders = lines.lines().map(PathBuf::from);
    folders
        .filter(|folder| folder.is_absolute() && folder.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a made-up environment, with the folders that it needs.
    fn put(packages: &Path, file: &str) {
        let path = packages.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    fn libraries(target: &str, need: Need, folders: &[PathBuf]) -> Vec<PathBuf> {
        let found = find(target, need, folders).into_iter();
        found.map(|found| found.library).collect()
    }

    #[test]
    fn plugins_are_found_by_the_order_of_folders_then_the_newest_first() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (a.path().to_owned(), b.path().to_owned());
        put(&a, "jax_plugins/xla_cuda12/xla_cuda_plugin.so");
        put(&a, "jax_plugins/xla_cuda13/xla_cuda_plugin.so");
        put(&a, "jax_plugins/xla_cuda13/__init__.py");
        put(&b, "jax_plugins/xla_cuda12/xla_cuda_plugin.so");
        put(&b, "jax_plugins/xla_rocm7/xla_rocm_plugin.so");
        put(&b, "jax_plugins/xla_rocm10/xla_rocm_plugin.so");
        put(&b, "jax_plugins/xla_rocm8/other.so");
        let folders = [a.clone(), b.clone(), a.clone(), a.join("missing")];
        let cuda =
            |root: &Path, n| root.join(format!("jax_plugins/xla_cuda{n}/xla_cuda_plugin.so"));
        let expected = [cuda(&a, 13), cuda(&a, 12), cuda(&b, 12)];
        assert_eq!(libraries("gpu", Need::Run, &folders), expected);
        let expected =
            [10, 7].map(|n| b.join(format!("jax_plugins/xla_rocm{n}/xla_rocm_plugin.so")));
        assert_eq!(libraries("rocm", Need::Run, &folders), expected);
        assert!(libraries("cpu", Need::Run, &folders).is_empty());
    }

    #[test]
    fn to_compile_a_plugin_needs_ptxas_beside_it() {
        let packages = tempfile::tempdir().unwrap();
        let folders = [packages.path().to_owned()];
        put(packages.path(), "jax_plugins/xla_cuda13/xla_cuda_plugin.so");
        assert_eq!(libraries("gpu", Need::Run, &folders).len(), 1);
        assert_eq!(libraries("gpu", Need::Compile, &folders).len(), 0);
        put(packages.path(), "nvidia/cu13/bin/ptxas");
        assert_eq!(libraries("gpu", Need::Compile, &folders).len(), 1);
    }

    #[test]
    fn a_plugin_says_where_it_is_and_what_it_is() {
        let packages = tempfile::tempdir().unwrap();
        put(packages.path(), "jax_plugins/xla_cuda13/xla_cuda_plugin.so");
        let folders = [packages.path().to_owned()];
        let words = || find("gpu", Need::Run, &folders)[0].to_string();
        let place = packages.path().display();
        assert_eq!(words(), format!("the Python packages of {place}"));
        put(
            packages.path(),
            "jax_cuda13_pjrt-0.12.0.1.dist-info/METADATA",
        );
        let expected = format!("jax_cuda13_pjrt 0.12.0.1 in the Python packages of {place}");
        assert_eq!(words(), expected);
    }

    #[test]
    fn the_activated_environment_is_looked_into_first() {
        let (venv, conda) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(venv.path(), "lib/python3.12/site-packages/x.py");
        put(conda.path(), "lib/python3.11/site-packages/x.py");
        put(conda.path(), "lib/other/site-packages/x.py");
        let variable = |name: &str| match name {
            "VIRTUAL_ENV" => Some(venv.path().into()),
            "CONDA_PREFIX" => Some(conda.path().into()),
            _ => None,
        };
        let expected = [
            venv.path().join("lib/python3.12/site-packages"),
            conda.path().join("lib/python3.11/site-packages"),
        ];
        assert_eq!(of_environments(&variable), expected);
        assert!(of_environments(&|_| Some("/no/such/folder".into())).is_empty());
    }
}

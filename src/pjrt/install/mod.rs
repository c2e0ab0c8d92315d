//! From a name such as `cpu` to a plugin's file: fetched by the user's own
//! pip where it is missing, so that their mirrors and proxies work; checked
//! against a pinned hash; unpacked under the user's cache folder.

mod catalogue;
mod environment;
mod fetch;
mod pip;
mod unpack;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tracing::{info, warn};

pub use catalogue::{KNOWN, KnownPlugin, Need, Wheel, in_words};
pub use environment::{Found, site_packages};
pub use fetch::{install, installed};

use super::gpu;
use super::plugin::Plugin;
use crate::bad_input;

/// How to look for a plugin.
#[derive(Clone, Debug, Default)]
pub struct ResolveOptions {
    /// Never fetch; use what is installed.
    pub offline: bool,
    /// The cache folder, if not [`cache_folder`].
    pub cache: Option<PathBuf>,
    pub need: Need,
    /// Folders of Python packages in which a GPU's plugin may be, if not
    /// [`site_packages`].
    pub packages: Option<Vec<PathBuf>>,
}

impl ResolveOptions {
    fn plugins_folder(&self) -> Result<PathBuf> {
        let cache = match &self.cache {
            Some(cache) => cache.clone(),
            None => cache_folder()?,
        };
        Ok(cache.join("plugins"))
    }
}

/// `$XDG_CACHE_HOME/xla-moco`, else `~/.cache/xla-moco`. It need not exist.
///
/// # Errors
/// [`crate::error::BadInput`] if neither variable is set.
pub fn cache_folder() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("xla-moco"))
        .ok_or_else(|| {
            bad_input!("no cache folder: set HOME, or XDG_CACHE_HOME to an absolute path")
        })
}

/// The file of the plugin that `spec` names: a target (`cpu`, `gpu`, `tpu`), a
/// known package, or a path to a plugin. Fetches it if need be.
///
/// # Errors
/// [`crate::error::BadInput`] for a name that nothing is known of, a machine
/// that no plugin is built for, and a plugin that cannot be had.
pub fn resolve(spec: &str, options: &ResolveOptions) -> Result<PathBuf> {
    first_that_works(spec, options, Ok)
}

/// As [`resolve`], and loads it; where the default plugin of a target cannot
/// be loaded, its fallback.
pub fn load(spec: &str, options: &ResolveOptions) -> Result<Arc<Plugin>> {
    first_that_works(spec, options, |path| Plugin::load(&path))
}

/// A plugin that may serve.
enum Candidate {
    Known(&'static KnownPlugin),
    /// In the packages of a Python environment.
    Found(Found),
}

fn first_that_works<T>(
    spec: &str,
    options: &ResolveOptions,
    use_it: impl Fn(PathBuf) -> Result<T>,
) -> Result<T> {
    if is_path(spec) {
        return use_it(PathBuf::from(spec));
    }
    let mut all = every_candidate(spec, options)?.into_iter().peekable();
    while let Some(candidate) = all.next() {
        let tried = match &candidate {
            Candidate::Known(known) => check_driver(known, options)
                .and_then(|()| install(known, options))
                .and_then(&use_it),
            Candidate::Found(found) => {
                info!("the {spec} plugin is that of {found}");
                use_it(found.library.clone())
            }
        };
        match (tried, all.peek()) {
            (Ok(value), _) => return Ok(value),
            (Err(error), Some(next)) => {
                let next = match next {
                    Candidate::Known(known) => known.package().to_owned(),
                    Candidate::Found(found) => found.to_string(),
                };
                warn!("{error:#}; trying {next} instead");
            }
            (Err(error), None) => return Err(error),
        }
    }
    unreachable!("every_candidate() gives at least one")
}

/// Gigabytes are not fetched for a GPU that is not there, unless one says so.
fn check_driver(known: &KnownPlugin, options: &ResolveOptions) -> Result<()> {
    let is_big = options.need == Need::Run && !known.runtime.is_empty();
    if !is_big || gpu::has_driver() || options.offline || installed(known, options)?.is_some() {
        return Ok(());
    }
    Err(bad_input!(
        "NVIDIA's driver is not loaded here (there is no /proc/driver/nvidia/version), so the {} \
         plugin, {} to fetch, would find no GPU: use --pjrt cpu; to fetch it all the same, run \
         `xla-moco plugins install {}`",
        known.target,
        known.download_in_words(Need::Run),
        known.target
    ))
}

/// What is installed in the cache folder, then what a Python environment has,
/// then what can be fetched; at least one.
fn every_candidate(spec: &str, options: &ResolveOptions) -> Result<Vec<Candidate>> {
    let known = candidates(spec);
    let mut all = Vec::new();
    let mut is_there = false;
    for known in known.iter().flatten() {
        is_there |= installed(known, options)?.is_some();
    }
    if !is_there && environment::holds(spec) {
        let folders = match &options.packages {
            Some(folders) => folders.clone(),
            None => site_packages(),
        };
        let found = environment::find(spec, options.need, &folders).into_iter();
        all.extend(found.map(Candidate::Found));
    }
    match known {
        Ok(known) => all.extend(known.into_iter().map(Candidate::Known)),
        Err(error) if all.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(all)
}

fn is_path(spec: &str) -> bool {
    spec.contains(std::path::MAIN_SEPARATOR) || spec.ends_with(".so")
}

/// The known plugins for `spec` that fit this machine; at least one.
///
/// # Errors
/// [`crate::error::BadInput`] where there are none.
pub fn candidates(spec: &str) -> Result<Vec<&'static KnownPlugin>> {
    candidates_on(spec, std::env::consts::OS, std::env::consts::ARCH)
}

fn candidates_on(spec: &str, os: &str, arch: &str) -> Result<Vec<&'static KnownPlugin>> {
    let named: Vec<_> = KNOWN
        .iter()
        .filter(|known| known.target == spec || known.package() == spec)
        .collect();
    if named.is_empty() {
        return Err(bad_input!(
            "no plugin is known for {spec:?}: give cpu, gpu, tpu, rocm, or the path of a PJRT \
             plugin's .so"
        ));
    }
    let fitting: Vec<_> = named
        .iter()
        .copied()
        .filter(|known| (known.os, known.arch) == (os, arch))
        .collect();
    if fitting.is_empty() {
        let machines: Vec<String> = named
            .iter()
            .map(|known| format!("{} {}", known.os, known.arch))
            .collect();
        return Err(bad_input!(
            "no {spec} plugin is published for {os} {arch} (only for {}): run in a Linux container \
             or virtual machine, or give the path of a PJRT plugin that you have built",
            machines.join(" and ")
        ));
    }
    Ok(fitting)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_machine_gets_its_plugins_in_order() {
        let packages = |arch| -> Vec<_> {
            let known = candidates_on("cpu", "linux", arch).unwrap();
            known.iter().map(|known| known.package()).collect()
        };
        assert_eq!(packages("x86_64"), ["lammps-jax-pjrt-cpu", "xla-cpu-pjrt"]);
        assert_eq!(packages("aarch64"), ["xla-cpu-pjrt"]);
        let error = candidates_on("cpu", "macos", "aarch64").unwrap_err();
        assert!(error.is::<crate::error::BadInput>());
        let error = error.to_string();
        assert!(
            error.contains("no cpu plugin is published for macos aarch64"),
            "{error}"
        );
        assert!(error.contains("Linux container"), "{error}");
        assert!(candidates_on("npu", "linux", "x86_64").is_err());
    }

    #[test]
    fn pins_are_whole() {
        let mut folders = BTreeSet::new();
        for known in KNOWN {
            let folder = known.folder(Need::Compile);
            assert!(folders.insert(folder.clone()), "{folder} stands twice");
            for wheel in known.wheels_for(Need::Run) {
                let of_package = format!("{}-{}-", wheel.package.replace('-', "_"), wheel.version);
                assert!(wheel.file.starts_with(&of_package), "{}", wheel.file);
                assert!(wheel.file.contains(known.arch), "{}", wheel.file);
                let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                assert!(wheel.sha256.len() == 64 && wheel.sha256.chars().all(is_hex));
            }
        }
    }
}

//! From a name such as `cpu` to a plugin's file: fetched by the user's own
//! pip where it is missing, so that their mirrors and proxies work; checked
//! against a pinned hash; unpacked under the user's cache folder.

mod catalogue;
mod pip;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::{info, warn};

pub use catalogue::{KNOWN, KnownPlugin, Wheel};

use super::plugin::Plugin;
use crate::bad_input;

/// How to look for a plugin.
#[derive(Clone, Debug, Default)]
pub struct ResolveOptions {
    /// Never fetch; use what is installed.
    pub offline: bool,
    /// The cache folder, if not [`cache_folder`].
    pub cache: Option<PathBuf>,
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

/// Where a known plugin's file is, if it is installed.
pub fn installed(known: &KnownPlugin, options: &ResolveOptions) -> Result<Option<PathBuf>> {
    let path = options
        .plugins_folder()?
        .join(known.folder())
        .join(known.library);
    Ok(path.is_file().then_some(path))
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

fn first_that_works<T>(
    spec: &str,
    options: &ResolveOptions,
    use_it: impl Fn(PathBuf) -> Result<T>,
) -> Result<T> {
    if is_path(spec) {
        return use_it(PathBuf::from(spec));
    }
    let mut candidates = candidates(spec)?.into_iter().peekable();
    while let Some(known) = candidates.next() {
        match install(known, options).and_then(&use_it) {
            Ok(value) => return Ok(value),
            Err(error) => match candidates.peek() {
                Some(next) => warn!("{error:#}; trying {} instead", next.package()),
                None => return Err(error),
            },
        }
    }
    unreachable!("candidates() gives at least one")
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

/// Installs a known plugin unless it is there, and gives its file. Any number
/// of processes may do so at once.
pub fn install(known: &KnownPlugin, options: &ResolveOptions) -> Result<PathBuf> {
    if let Some(path) = installed(known, options)? {
        return Ok(path);
    }
    if options.offline {
        return Err(bad_input!(
            "the plugin {} is not installed, and fetching is turned off: run \
             `xla-moco plugins install {}` once with a network",
            known.package(),
            known.package()
        ));
    }
    let plugins = options.plugins_folder()?;
    std::fs::create_dir_all(&plugins)
        .with_context(|| format!("cannot make the cache folder {}", plugins.display()))?;
    info!(
        "fetching the {} plugin {} {} with pip: {}, licence {}, kept in {}",
        known.target,
        known.package(),
        known.version(),
        known.download_in_words(),
        known.licence,
        plugins.display()
    );
    // In the cache folder, so that the rename at the end stays on one disk.
    let staging = tempfile::Builder::new()
        .prefix(".fetching-")
        .tempdir_in(&plugins)
        .with_context(|| format!("cannot write to {}", plugins.display()))?;
    let unpacked = staging.path().join("unpacked");
    for wheel in known.wheels {
        let file = pip::download(wheel, staging.path())?;
        unpack::unpack(&file, &unpacked)?;
    }
    if !unpacked.join(known.library).is_file() {
        return Err(bad_input!(
            "the wheel of {} holds no {}",
            known.package(),
            known.library
        ));
    }
    let folder = plugins.join(known.folder());
    put_in_place(&unpacked, &folder)?;
    Ok(folder.join(known.library))
}

/// Renames a finished folder into place; another process may have been
/// quicker, with the same content.
fn put_in_place(unpacked: &Path, folder: &Path) -> Result<()> {
    match std::fs::rename(unpacked, folder) {
        Err(_) if folder.is_dir() => Ok(()),
        result => result.with_context(|| format!("cannot make {}", folder.display())),
    }
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
            assert!(
                folders.insert(known.folder()),
                "{} stands twice",
                known.folder()
            );
            for wheel in known.wheels {
                let of_package = format!("{}-{}-", wheel.package.replace('-', "_"), wheel.version);
                assert!(wheel.file.starts_with(&of_package), "{}", wheel.file);
                assert!(wheel.file.contains(known.arch), "{}", wheel.file);
                let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                assert!(wheel.sha256.len() == 64 && wheel.sha256.chars().all(is_hex));
            }
        }
    }

    #[test]
    fn offline_and_missing_says_how_to_install() {
        let cache = tempfile::tempdir().unwrap();
        let options = ResolveOptions {
            offline: true,
            cache: Some(cache.path().to_owned()),
        };
        let known = &KNOWN[0];
        let error = install(known, &options).unwrap_err().to_string();
        assert!(error.contains("xla-moco plugins install"), "{error}");
        // Nothing is written by asking.
        assert!(!cache.path().join("plugins").exists());
    }

    #[test]
    fn the_second_to_finish_takes_the_first_ones_folder() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("plugin");
        for content in ["first", "second"] {
            let unpacked = temp.path().join(content);
            std::fs::create_dir(&unpacked).unwrap();
            std::fs::write(unpacked.join("file"), content).unwrap();
            put_in_place(&unpacked, &place).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(place.join("file")).unwrap(),
            "first"
        );
    }
}

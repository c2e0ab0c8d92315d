//! A known plugin's wheels into the cache folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::info;

use super::catalogue::{KnownPlugin, Need, Wheel, in_words};
use super::{ResolveOptions, pip, unpack};
use crate::bad_input;
use crate::hash::sha256_of_file;

/// What wheels unpack to is at most so many times their own size (those of
/// CUDA: 1.6).
const UNPACKED: u64 = 3;
/// Beginning of the name of a folder that wheels are unpacked in.
const STAGING: &str = ".fetching-";

/// Where a known plugin's file is, if it is installed for `options.need`.
pub fn installed(known: &KnownPlugin, options: &ResolveOptions) -> Result<Option<PathBuf>> {
    let plugins = options.plugins_folder()?;
    // What runs also compiles.
    let mut needs = vec![Need::Run];
    needs.extend((options.need == Need::Compile).then_some(Need::Compile));
    let paths = needs
        .into_iter()
        .map(|need| plugins.join(known.folder(need)).join(known.library));
    Ok(paths.into_iter().find(|path| path.is_file()))
}

/// Installs a known plugin unless it is there, and gives its file. Any number
/// of processes may do so at once. Wheels that were fetched before an
/// interruption are not fetched again.
///
/// # Errors
/// [`crate::error::BadInput`] where fetching is turned off or fails, and where
/// the disk is too small.
pub fn install(known: &KnownPlugin, options: &ResolveOptions) -> Result<PathBuf> {
    if let Some(path) = installed(known, options)? {
        return Ok(path);
    }
    let need = options.need;
    if options.offline {
        let only = match need {
            Need::Compile if !known.runtime.is_empty() => " --compile-only",
            _ => "",
        };
        return Err(bad_input!(
            "the plugin {} is not installed, and fetching is turned off: run \
             `xla-moco plugins install {}{only}` once with a network",
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
        known.download_in_words(need),
        known.licence,
        plugins.display()
    );
    let wheels: Vec<&Wheel> = known.wheels_for(need).collect();
    if wheels.len() > 1 {
        for wheel in &wheels {
            info!(
                "  {} {}: {}",
                wheel.package,
                wheel.version,
                in_words(wheel.size)
            );
        }
    }
    drop_leftovers(&plugins);
    check_space(&plugins, &wheels)?;
    // In the cache folder, so that the rename at the end stays on one disk.
    let staging = tempfile::Builder::new()
        .prefix(STAGING)
        .tempdir_in(&plugins)
        .with_context(|| format!("cannot write to {}", plugins.display()))?;
    let unpacked = staging.path().join("unpacked");
    // All are fetched before any is unpacked: the network is what fails.
    let mut files = Vec::new();
    let all = wheels.iter().enumerate().try_for_each(|(index, wheel)| {
        let place = format!("{} of {}", index + 1, wheels.len());
        files.push(fetched(wheel, &plugins, staging.path(), &place)?);
        anyhow::Ok(())
    });
    let all = all.and_then(|()| {
        files
            .iter()
            .try_for_each(|file| unpack::unpack(file, &unpacked))
    });
    if let Err(error) = all {
        // Another process may have been quicker, and have removed the wheels.
        return installed(known, options)?.ok_or(error);
    }
    if !unpacked.join(known.library).is_file() {
        return Err(bad_input!(
            "the wheel of {} holds no {}",
            known.package(),
            known.library
        ));
    }
    let folder = plugins.join(known.folder(need));
    put_in_place(&unpacked, &folder)?;
    for file in &files {
        // Another process may have been quicker.
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_dir(kept(&plugins));
    Ok(folder.join(known.library))
}

/// Removes what processes that were killed left half unpacked. One that is a
/// day old belongs to none that still runs.
fn drop_leftovers(plugins: &Path) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let entries = std::fs::read_dir(plugins).into_iter().flatten().flatten();
    for entry in entries {
        let is_staging = entry.file_name().to_string_lossy().starts_with(STAGING);
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|time| time.elapsed().ok());
        if is_staging && age.is_some_and(|age| age > DAY) {
            // Else it is only in the way.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whole wheels of an install that is under way or was interrupted.
fn kept(plugins: &Path) -> PathBuf {
    plugins.join(".wheels")
}

/// A wheel as it was kept, or fetched now and kept.
fn fetched(wheel: &Wheel, plugins: &Path, staging: &Path, place: &str) -> Result<PathBuf> {
    let kept = kept(plugins);
    let file = kept.join(wheel.file);
    match sha256_of_file(&file) {
        Ok(found) if found == wheel.sha256 => {
            info!("{place}: {} is there", wheel.package);
            return Ok(file);
        }
        Ok(_) => std::fs::remove_file(&file)
            .with_context(|| format!("cannot remove {}", file.display()))?,
        Err(_) => {}
    }
    if !place.ends_with(" 1") {
        info!(
            "{place}: fetching {}, {}",
            wheel.package,
            in_words(wheel.size)
        );
    }
    let new = pip::download(wheel, staging)?;
    std::fs::create_dir_all(&kept)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot keep {}", file.display()))?;
    Ok(file)
}

fn check_space(plugins: &Path, wheels: &[&Wheel]) -> Result<()> {
    let is_kept = |wheel: &&&Wheel| {
        let metadata = kept(plugins).join(wheel.file).metadata();
        metadata.is_ok_and(|metadata| metadata.len() == wheel.size)
    };
    let all: u64 = wheels.iter().map(|wheel| wheel.size).sum();
    let there: u64 = wheels.iter().filter(is_kept).map(|wheel| wheel.size).sum();
    let needed = all * (1 + UNPACKED) - there;
    // Where the system does not tell, the disk itself will.
    match fs4::available_space(plugins) {
        Ok(free) if free < needed => Err(bad_input!(
            "{} has {} free; fetching and unpacking takes up to {} for a while: make room, or set \
             XDG_CACHE_HOME to a folder on another disk",
            plugins.display(),
            in_words(free),
            in_words(needed)
        )),
        _ => Ok(()),
    }
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
    use super::super::catalogue::KNOWN;
    use super::*;

    fn gpu() -> &'static KnownPlugin {
        KNOWN.iter().find(|known| known.target == "gpu").unwrap()
    }

    fn options(cache: &Path, need: Need) -> ResolveOptions {
        ResolveOptions {
            offline: true,
            cache: Some(cache.to_owned()),
            need,
            ..ResolveOptions::default()
        }
    }

    #[test]
    fn what_runs_also_compiles_but_not_the_other_way_round() {
        let cache = tempfile::tempdir().unwrap();
        let of = |need| installed(gpu(), &options(cache.path(), need)).unwrap();
        let put = |need| {
            let library = cache.path().join("plugins").join(gpu().folder(need));
            let library = library.join(gpu().library);
            std::fs::create_dir_all(library.parent().unwrap()).unwrap();
            std::fs::write(&library, "").unwrap();
            library
        };
        assert_eq!((of(Need::Run), of(Need::Compile)), (None, None));
        let light = put(Need::Compile);
        assert_eq!((of(Need::Run), of(Need::Compile)), (None, Some(light)));
        let error = install(gpu(), &options(cache.path(), Need::Run)).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("install jax-cuda13-pjrt` once with a network")
        );
        let whole = put(Need::Run);
        assert_eq!(
            (of(Need::Run), of(Need::Compile)),
            (Some(whole.clone()), Some(whole))
        );
    }

    #[test]
    fn a_wheel_that_was_fetched_is_not_fetched_again_and_a_broken_one_is_no_help() {
        let cache = tempfile::tempdir().unwrap();
        let staging = tempfile::tempdir().unwrap();
        // The hash of "content"; what pip refuses without asking anyone.
        let wheel = Wheel {
            package: "-no package's name-",
            version: "0",
            file: "a-0.whl",
            sha256: "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
            size: 7,
        };
        let file = kept(cache.path()).join(wheel.file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "content").unwrap();
        let fetched = |wheel| fetched(wheel, cache.path(), staging.path(), "1 of 2");
        assert_eq!(fetched(&wheel).unwrap(), file);
        std::fs::write(&file, "conten").unwrap();
        assert!(fetched(&wheel).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_before_the_first_byte() {
        let cache = tempfile::tempdir().unwrap();
        let wheel = Wheel {
            size: 1 << 60,
            ..Wheel {
                package: "a",
                version: "0",
                file: "a",
                sha256: "",
                size: 0,
            }
        };
        let error = check_space(cache.path(), &[&wheel]).unwrap_err();
        assert!(error.is::<crate::error::BadInput>());
        assert!(error.to_string().contains("XDG_CACHE_HOME"), "{error}");
    }

    #[test]
    fn offline_and_missing_says_how_to_install() {
        let cache = tempfile::tempdir().unwrap();
        let options = ResolveOptions {
            offline: true,
            cache: Some(cache.path().to_owned()),
            ..ResolveOptions::default()
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

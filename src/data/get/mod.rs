//! Downloading data sets from their publishers.
//!
//! All happens in `.NAME.partial` beside the folder that is made: what was
//! downloaded stays there after an error or a kill, and the next call goes on
//! with it. The finished folder appears in one rename.

mod catalogue;
#[cfg(feature = "download")]
mod http;
mod unpack;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use catalogue::{PublishedFile, PublishedSet, SETS};
pub use unpack::{Bounds, unpack};

use crate::bad_input;

/// Names an address under which the publishers' files are found instead:
/// `ADDRESS/SET/FILE`. Sizes and checksums stay those of the publishers.
pub const MIRROR: &str = "XLA_MOCO_DATA_MIRROR";

/// How downloads go.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`MIRROR`].
    pub mirror: Option<String>,
    /// Before the first try again; doubled each time.
    pub pause: Duration,
    /// Tries without a byte of progress before it gives up.
    pub tries: u32,
    pub bounds: Bounds,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirror: None,
            pause: Duration::from_secs(1),
            tries: 5,
            bounds: Bounds::default(),
        }
    }
}

/// How far a file is.
pub struct Progress<'a> {
    pub file: &'a str,
    pub done: u64,
    pub total: u64,
}

/// The set of a name.
///
/// # Errors
/// [`bad_input!`] if there is none, or it cannot be had without an account.
pub fn set(name: &str) -> Result<&'static PublishedSet> {
    if ["imagenet", "imagenet1k", "ilsvrc2012"].contains(&name.to_lowercase().as_str()) {
        return Err(bad_input!(
            "ImageNet is given to those who have an account and accept its terms: ask for one at \
             image-net.org, download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and \
             ILSVRC2012_devkit_t12.tar.gz there, and give the folder they are in to --data; they \
             need not be unpacked"
        ));
    }
    SETS.iter().find(|set| set.name == name).ok_or_else(|| {
        let names: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        bad_input!(
            "no data set {name:?} is known; expected one of {}",
            names.join(", ")
        )
    })
}

/// Downloads and unpacks a set into `folder/NAME`, which it gives. If that is
/// there, nothing is done.
///
/// # Errors
/// If a file cannot be had, or is not the one that was published; if this
/// program was built without HTTP; if another process is at it.
pub fn get(
    set: &PublishedSet,
    folder: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf> {
    let place = folder.join(set.name);
    if place.exists() {
        tracing::info!("{} is there", place.display());
        return Ok(place);
    }
    let partial = folder.join(format!(".{}.partial", set.name));
    let making = || format!("making {}", partial.display());
    fs::create_dir_all(&partial).with_context(making)?;
    let lock = File::create(partial.join("lock")).with_context(making)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            return Err(bad_input!(
                "another process is downloading to {}; wait for it",
                partial.display()
            ));
        }
        locked => locked.with_context(making)?,
    }
    for file in set.files {
        fetch(set, file, &partial, options, progress)?;
    }
    let unpacked = partial.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(making)?;
    }
    fs::create_dir(&unpacked).with_context(making)?;
    for file in set.files {
        let downloaded = partial.join(file.name());
        match file.is_archive() {
            true => {
                tracing::info!("unpacking {}", file.name());
                unpack(&downloaded, &unpacked, options.bounds)?;
            }
            false => {
                let copy = unpacked.join(file.name());
                fs::copy(&downloaded, &copy).with_context(making)?;
                File::open(&copy)
                    .and_then(|file| file.sync_all())
                    .with_context(making)?;
            }
        }
    }
    let publishing = || format!("cannot make {}", place.display());
    fs::rename(&unpacked, &place).with_context(publishing)?;
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(publishing)?;
    }
    fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    Ok(place)
}

#[cfg(feature = "download")]
fn fetch(
    set: &PublishedSet,
    file: &PublishedFile,
    folder: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let url = match &options.mirror {
        Some(mirror) => format!(
            "{}/{}/{}",
            mirror.trim_end_matches('/'),
            set.name,
            file.name()
        ),
        None => file.url.to_owned(),
    };
    http::fetch(&url, file, folder, options, progress)
}

/// Without HTTP: files that were put there by hand will do.
#[cfg(not(feature = "download"))]
fn fetch(
    set: &PublishedSet,
    file: &PublishedFile,
    folder: &Path,
    _: &Options,
    _: &mut dyn FnMut(Progress),
) -> Result<()> {
    let path = folder.join(file.name());
    if path.is_file() {
        return check(&path, file);
    }
    let urls: Vec<&str> = set.files.iter().map(|file| file.url).collect();
    Err(bad_input!(
        "this program was built without HTTP: build it with `--features download`; or download {} \
         into {} and run this again",
        urls.join(" and "),
        folder.display()
    ))
}

/// Refuses a file that is not the published one, and removes it.
fn check(path: &Path, file: &PublishedFile) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let bytes = fs::metadata(path).with_context(reading)?.len();
    let found = crate::hash::sha256_of_file(path).with_context(reading)?;
    if (bytes, &*found) == (file.bytes, file.sha256) {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    Err(bad_input!(
        "{} has {bytes} bytes of SHA-256 {found}; expected are {} of {}, the file as it was \
         published. It is removed; was it changed on the way, or by a mirror?",
        file.name(),
        file.bytes,
        file.sha256
    ))
}

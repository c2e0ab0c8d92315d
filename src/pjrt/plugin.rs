//! Loading a plugin.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::error;
use super::ffi::{Api, Value};
use super::gpu::{self, Toolkit};
use crate::bad_input;

/// The oldest API (0.x) that we know to work.
const MIN_MINOR: i32 = 81;

/// A loaded plugin. It stays loaded until the process ends.
pub struct Plugin {
    pub(super) api: Api,
    path: PathBuf,
}

/// A plugin must be initialised once, however often it is asked for.
static LOADED: Mutex<Option<HashMap<PathBuf, Arc<Plugin>>>> = Mutex::new(None);

impl Plugin {
    /// Loads a plugin and checks its version. Loading the same file again
    /// gives the same plugin.
    ///
    /// # Errors
    /// [`crate::error::BadInput`] where the file is missing, no plugin, or
    /// too old; the plugin's own error where it cannot start.
    pub fn load(path: &Path) -> Result<Arc<Plugin>> {
        let path = path.canonicalize().map_err(|e| {
            bad_input!(
                "no PJRT plugin at {}: {e} (give cpu, gpu, tpu, rocm, or the path of a plugin's .so)",
                path.display()
            )
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_with(HashMap::new);
        if let Some(plugin) = loaded.get(&path) {
            return Ok(Arc::clone(plugin));
        }
        let plugin = Arc::new(Self::open(&path)?);
        loaded.insert(path, Arc::clone(&plugin));
        Ok(plugin)
    }

    fn open(path: &Path) -> Result<Plugin> {
        check_is_library(path)?;
        let no_plugin = |reason: String| {
            bad_input!(
                "{} is not a PJRT plugin that works here: {reason} \
                 (`xla-moco plugins install cpu` fetches one)",
                path.display()
            )
        };
        if let Some(toolkit) = Toolkit::of(path) {
            for wrong in toolkit.outdated(gpu::driver_version().as_deref()) {
                tracing::warn!("{wrong}");
            }
            toolkit.preload();
        }
        let api = Api::open(path).map_err(no_plugin)?;
        let (major, minor) = api.version();
        if major != 0 || minor < MIN_MINOR {
            return Err(bad_input!(
                "the plugin {} speaks PJRT API {major}.{minor}; this program needs 0.{MIN_MINOR} \
                 or a later 0.x: use a newer plugin (`xla-moco plugins list` shows the known ones)",
                path.display()
            ));
        }
        api.initialize()
            .with_context(|| format!("the plugin {} does not start", path.display()))?;
        Ok(Plugin {
            api,
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// (major, minor) version of the PJRT C API that the plugin speaks.
    pub fn api_version(&self) -> (i32, i32) {
        self.api.version()
    }

    /// What the plugin says of itself, such as `stablehlo_current_version`.
    pub fn attributes(&self) -> error::Result<Vec<(String, Value)>> {
        self.api.attributes()
    }
}

/// Refuses what is certainly no library, with a better message than the
/// loader's.
fn check_is_library(path: &Path) -> Result<()> {
    let mut magic = [0u8; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let is_elf = read.is_ok() && magic == *b"\x7fELF";
    if cfg!(target_os = "linux") && !is_elf {
        return Err(bad_input!(
            "{} is not a shared library (it does not start as an ELF file does); \
             expected a PJRT plugin such as pjrt_c_api_cpu_plugin.so",
            path.display()
        ));
    }
    Ok(())
}

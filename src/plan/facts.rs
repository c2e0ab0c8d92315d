//! What a compiler says of one program for one target, kept on disk, so that
//! what was asked once is answered at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::buffers::{Buffers, biggest};
use super::collectives::{Place, Total, by_kind, by_place, collectives};
use super::refusal;
use super::target::{Machine, Told};
use crate::checkpoint::atomic;
use crate::hash::hex;
use crate::pjrt::install::cache_folder;
use crate::pjrt::{self, Code, CompileOptions, CompiledMemory, HloText, export_hlo};

/// The pass after whose end collectives still have the names of what needs
/// them: a filter for [`export_hlo`].
pub const AFTER_PARTITIONING: &str = "spmd-partitioning";

/// Buffers that are kept.
pub(super) const BUFFERS: usize = 12;

/// The largest entry that is read back.
const MAX_ENTRY: u64 = 16 << 20;

/// Raised when what an entry holds changes.
const FORMAT: u32 = 1;

/// Of one device, in bytes and FLOPs. What the compiler does not tell is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Why the compiler refused: the program needs more memory than there is.
    pub refusal: Option<String>,
    pub used_bytes: Option<u64>,
    pub capacity_bytes: Option<u64>,
    pub memory: Option<CompiledMemory>,
    pub flops: Option<f64>,
    pub bytes_accessed: Option<f64>,
    /// The cost model's, which counts a loop's body once.
    pub optimal_seconds: Option<f64>,
    /// As the program runs.
    pub collectives: Option<BTreeMap<String, Total>>,
    /// Right after partitioning.
    pub places: Option<Vec<Place>>,
    pub biggest: Vec<Buffers>,
    /// How long the compiler took, then.
    pub compile_seconds: f64,
}

/// The program's HLO right after partitioning, of those dumped with
/// [`AFTER_PARTITIONING`].
pub fn partitioned(hlo: &HloText) -> Option<&str> {
    // `0001.xla-partitioner.after_tpu-spmd-partitioning.before_dce`
    let after = |(name, _): &&(String, String)| {
        let (_, passes) = name.split_once(".after_").unwrap_or_default();
        let pass = passes.split('.').next().unwrap_or_default();
        pass.ends_with(AFTER_PARTITIONING)
    };
    hlo.passes.iter().find(after).map(|(_, text)| text.as_str())
}

/// Compiles StableHLO for all devices of the machine, unless the cache knows.
///
/// # Errors
/// The compiler's, except that the program does not fit.
pub(super) fn facts(machine: &Machine, text: &str, options: &CompileOptions) -> Result<Facts> {
    let entry = entry(machine, text, options)?;
    if let Some(facts) = load(&entry) {
        return Ok(facts);
    }
    let facts = ask(machine, text, options)?;
    if let Err(error) = store(&entry, &facts) {
        tracing::warn!("what the compiler said is not kept: {error:#}");
    }
    Ok(facts)
}

fn ask(machine: &Machine, text: &str, options: &CompileOptions) -> Result<Facts> {
    let start = Instant::now();
    let compiled = export_hlo(options, Some(AFTER_PARTITIONING), |options| {
        machine.compile(text, options)
    });
    let compile_seconds = start.elapsed().as_secs_f64();
    match compiled {
        Ok((told, hlo)) => Ok(Facts::new(&told, &hlo, compile_seconds)),
        Err(error) => match error.downcast_ref::<pjrt::Error>() {
            Some(refusal) if refusal.code() == Some(Code::RESOURCE_EXHAUSTED) => {
                Ok(Facts::refused(&refusal.to_string(), compile_seconds))
            }
            _ => Err(error),
        },
    }
}

impl Facts {
    fn new(told: &Told, hlo: &HloText, compile_seconds: f64) -> Self {
        let cost = |key: &str| told.costs.as_ref()?.get(key).copied();
        let totals = by_kind(&collectives(&hlo.after_optimizations)).into_iter();
        Self {
            refusal: None,
            used_bytes: None,
            capacity_bytes: None,
            memory: told.memory,
            flops: cost("flops"),
            bytes_accessed: cost("bytes accessed"),
            optimal_seconds: cost("optimal_seconds").filter(|seconds| *seconds > 0.0),
            collectives: Some(
                totals
                    .map(|(kind, total)| (kind.to_owned(), total))
                    .collect(),
            ),
            places: partitioned(hlo).map(|hlo| by_place(&collectives(hlo))),
            biggest: biggest(&hlo.after_optimizations, BUFFERS),
            compile_seconds,
        }
    }

    fn refused(words: &str, compile_seconds: f64) -> Self {
        let read = refusal::read(words);
        Self {
            refusal: Some(words.lines().next().unwrap_or_default().to_owned()),
            used_bytes: read.used_bytes,
            capacity_bytes: read.capacity_bytes,
            memory: None,
            flops: None,
            bytes_accessed: None,
            optimal_seconds: None,
            collectives: None,
            places: None,
            biggest: read.largest,
            compile_seconds,
        }
    }
}

/// The file of an answer: named by all that it depends on.
fn entry(machine: &Machine, text: &str, options: &CompileOptions) -> Result<PathBuf> {
    let plugin = machine.plugin.path();
    let file = plugin
        .metadata()
        .with_context(|| format!("cannot look at {}", plugin.display()))?;
    let changed = file.modified()?.duration_since(UNIX_EPOCH);
    // Flags that reach the compiler.
    let flags =
        ["XLA_FLAGS", "LIBTPU_INIT_ARGS"].map(|name| std::env::var(name).unwrap_or_default());
    let mut flags = flags.join("\n");
    if !options.env_overrides.is_empty() {
        flags += &format!("\n{:?}", options.env_overrides);
    }
    let mut hash = Sha256::new();
    for part in [
        flags,
        FORMAT.to_string(),
        machine.target.to_string(),
        machine.device_kind.clone(),
        pjrt::pinned_threads().to_string(),
        plugin.display().to_string(),
        file.len().to_string(),
        changed.map_or(0, |time| time.as_nanos()).to_string(),
        text.to_owned(),
    ] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    kept(&hash.finalize(), "json")
}

/// The file of the cache for a key.
pub(super) fn kept(key: &[u8], extension: &str) -> Result<PathBuf> {
    let name = format!("{}.{extension}", hex(key));
    Ok(cache_folder()?.join("plans").join(name))
}

/// Writes a file of the cache.
pub(super) fn keep(file: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    atomic::write_file(file, content)
}

/// None for an entry that is not there or cannot be read: it is made anew.
fn load(entry: &Path) -> Option<Facts> {
    let size = entry.metadata().ok()?.len();
    let text = (size <= MAX_ENTRY)
        .then(|| std::fs::read(entry))
        .and_then(Result::ok)?;
    serde_json::from_slice(&text).ok()
}

fn store(entry: &Path, facts: &Facts) -> Result<()> {
    keep(entry, &serde_json::to_vec(facts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_and_a_broken_one_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("plans/one.json");
        assert_eq!(load(&entry), None);
        let words = "Used 16.5G of 15.5G hbm.\n  1. Size: 1.50G";
        let facts = Facts::refused(words, 2.5);
        store(&entry, &facts).unwrap();
        assert_eq!(load(&entry).as_ref(), Some(&facts));
        std::fs::write(&entry, "{").unwrap();
        assert_eq!(load(&entry), None);
    }
}

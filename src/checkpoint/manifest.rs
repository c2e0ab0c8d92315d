//! `manifest.json`: what wrote a checkpoint, and how to know that it is whole.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::time::utc;
use crate::hash::hex;

/// Version of the checkpoint format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// A manifest is a page of text; a larger file is none.
const MAX_BYTES: u64 = 1 << 20;

/// Where a state comes from: all that decides whether a resumed run repeats
/// the bits of an unbroken one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Fingerprint of the part of the resolved config that changes the run.
    pub config_fingerprint: String,
    /// Fingerprint of the training pictures.
    pub data_fingerprint: String,
    /// Fingerprint of the program that made the state.
    pub program_fingerprint: String,
    /// The PJRT plugin: its platform name, its version, and what tells one
    /// build of it from another.
    pub plugin_name: String,
    pub plugin_version: String,
    pub plugin_build: String,
    pub device_count: u32,
    /// Size of the CPU plugin's thread pool (`NPROC`): sums are split by it.
    pub thread_count: u32,
    /// Instruction set extensions of the CPU, sorted.
    pub cpu_features: Vec<String>,
    pub host: String,
    /// Version of this crate.
    pub crate_version: String,
}

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    pub step: u64,
    /// SHA-256 of `state.safetensors`, lower-case hex.
    pub state_sha256: String,
    /// Size of `state.safetensors` in bytes.
    pub state_bytes: u64,
    pub origin: Origin,
    /// When it was written: RFC 3339, UTC.
    pub created: String,
    /// SHA-256 of this manifest as compact JSON with this field empty.
    manifest_sha256: String,
}

impl Manifest {
    pub(super) fn new(step: u64, state: (u64, String), origin: &Origin) -> Result<Self> {
        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            step,
            state_bytes: state.0,
            state_sha256: state.1,
            origin: origin.clone(),
            created: utc(SystemTime::now()),
            manifest_sha256: String::new(),
        };
        manifest.manifest_sha256 = manifest.own_sha256()?;
        Ok(manifest)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads and checks a manifest file.
    ///
    /// # Errors
    /// No regular file, too large, no manifest, of a version that this build
    /// does not know, or altered since it was written.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes =
            fs::symlink_metadata(path).with_context(|| format!("it has no {}", file_name(path)))?;
        ensure!(
            bytes.is_file(),
            "its {} is no regular file",
            file_name(path)
        );
        let mut json = Vec::new();
        File::open(path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut json)?;
        ensure!(
            json.len() as u64 <= MAX_BYTES,
            "its manifest is over {MAX_BYTES} bytes"
        );

        // The version first: the rest of a file of another version is unknown.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } =
            serde_json::from_slice(&json).context("its manifest is damaged")?;
        if format_version != FORMAT_VERSION {
            bail!(
                "it is of format version {format_version}, this build reads version \
                 {FORMAT_VERSION}: use the build that wrote it"
            );
        }
        let manifest: Manifest =
            serde_json::from_slice(&json).context("its manifest is damaged")?;
        ensure!(
            manifest.own_sha256()? == manifest.manifest_sha256,
            "its manifest is damaged: the manifest's own SHA-256 does not agree"
        );
        Ok(manifest)
    }

    fn own_sha256(&self) -> Result<String> {
        let mut bare = self.clone();
        bare.manifest_sha256.clear();
        Ok(hex(&Sha256::digest(serde_json::to_vec(&bare)?)))
    }
}

pub(super) fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The name of this machine, `localhost` where it is not told.
pub fn host_name() -> String {
    let told = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    match told.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}

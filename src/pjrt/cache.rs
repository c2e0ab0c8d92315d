//! Compiled programs kept on disk, so that the second start is quick.
//!
//! An entry is found by everything that its code depends on: the program, the
//! options, the plugin's file, the processor, the devices, the thread pool.
//! So there is nothing to invalidate; old entries are dropped by age.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::client::{Client, Program};
use super::error;
use super::executable::Executable;
use super::install::cache_folder;
use super::pinned_threads;
use super::plugin::Plugin;
use super::proto::CompileOptions;
use crate::hash::{hex, sha256_of_file};

/// Entry: magic, key, SHA-256 of the rest, the serialised executable.
const MAGIC: &[u8; 8] = b"xlamoco1";
const HEADER: usize = MAGIC.len() + 32 + 32;
/// The largest entry that is read back.
const MAX_ENTRY: u64 = 4 << 30;
/// Entries kept; a ViT step takes 5 to 50 MB.
const MAX_ENTRIES: usize = 64;

/// A folder of compiled programs.
#[derive(Clone, Debug)]
pub struct CompileCache {
    folder: PathBuf,
}

impl CompileCache {
    /// In the user's cache folder.
    pub fn of_user() -> Result<CompileCache> {
        Ok(CompileCache::in_folder(cache_folder()?.join("executables")))
    }

    /// In a folder, which is made when the first entry is written.
    pub fn in_folder(folder: PathBuf) -> CompileCache {
        CompileCache { folder }
    }

    fn entry(&self, key: &[u8; 32]) -> PathBuf {
        self.folder.join(format!("{}.bin", hex(key)))
    }

    /// The executable of an entry; none where there is no entry.
    fn load(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        let path = self.entry(key);
        let Ok(metadata) = std::fs::metadata(&path) else {
            return Ok(None);
        };
        ensure!(
            metadata.len() <= MAX_ENTRY,
            "it has {} bytes",
            metadata.len()
        );
        let mut entry = std::fs::read(&path)?;
        ensure!(
            entry.len() >= HEADER && entry.starts_with(MAGIC) && &entry[8..40] == key,
            "it is cut short or no entry of this program"
        );
        let executable = entry.split_off(HEADER);
        ensure!(
            entry[40..] == *Sha256::digest(&executable),
            "its checksum does not match its content"
        );
        Ok(Some(executable))
    }

    fn store(&self, key: &[u8; 32], executable: &[u8]) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(key)?;
        file.write_all(&Sha256::digest(executable))?;
        file.write_all(executable)?;
        // Not synced: a torn entry fails its checksum.
        file.persist(self.entry(key))?;
        self.drop_oldest(MAX_ENTRIES)
    }

    fn drop_oldest(&self, keep: usize) -> Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|e| e == "bin") {
                entries.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        entries.sort();
        for (_, path) in entries.iter().rev().skip(keep) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// SHA-256 of a plugin's file, remembered by its path, size and time.
    fn plugin_hash(&self, plugin: &Plugin) -> Result<String> {
        let metadata = std::fs::metadata(plugin.path())?;
        let identity = format!(
            "{:?} {} {:?}",
            plugin.path(),
            metadata.len(),
            metadata.modified()?
        );
        let name = format!("{}.plugin", hex(&Sha256::digest(identity)));
        let remembered = self.folder.join(name);
        if let Ok(hash) = std::fs::read_to_string(&remembered)
            && hash.len() == 64
        {
            return Ok(hash);
        }
        let hash = sha256_of_file(plugin.path())?;
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(hash.as_bytes())?;
        file.persist(remembered)?;
        Ok(hash)
    }

    fn key(&self, client: &Client, text: &str, options: &CompileOptions) -> Result<[u8; 32]> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(text.as_bytes());
        add(&client.encode(options));
        add(self.plugin_hash(client.plugin())?.as_bytes());
        add(client.platform_version().as_bytes());
        for device in client.devices() {
            add(format!("{} {}", device.id(), device.kind()).as_bytes());
        }
        add(processor().as_bytes());
        add(pinned_threads().to_string().as_bytes());
        // Flags that plugins read from the environment.
        add(variable("XLA_FLAGS").as_bytes());
        add(variable("LIBTPU_INIT_ARGS").as_bytes());
        Ok(hash.finalize().into())
    }
}

/// The instruction sets that generated code may use.
fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = |name: &str| {
        cpuinfo
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or("")
    };
    // x86-64 says flags, aarch64 Features.
    [
        std::env::consts::ARCH,
        first("model name"),
        first("flags"),
        first("Features"),
    ]
    .join("\n")
}

/// Where an executable has come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Cache,
    Compiler,
}

impl Client {
    /// As [`Client::compile`], by way of a cache if there is one. An entry that
    /// cannot be used is compiled again, with a line that says why; a cache
    /// that cannot be written only costs the next start its time.
    pub fn compile_cached(
        &self,
        program: &Program,
        options: &CompileOptions,
        cache: Option<&CompileCache>,
    ) -> error::Result<(Executable, Origin)> {
        let compile = || Ok((self.compile(program, options)?, Origin::Compiler));
        let Some(cache) = cache else {
            return compile();
        };
        let key = match cache.key(self, program.text, options) {
            Ok(key) => key,
            Err(error) => {
                warn!("no compile cache: {error:#}");
                return compile();
            }
        };
        match self.load_cached(cache, &key) {
            Ok(Some(executable)) => return Ok((executable, Origin::Cache)),
            Ok(None) => {}
            Err(error) => warn!(
                "the cached executable {} is refused, compiling again: {error:#}",
                cache.entry(&key).display()
            ),
        }
        let (executable, origin) = compile()?;
        if let Err(error) = keep(cache, &key, &executable) {
            debug!("the executable is not cached: {error:#}");
        }
        Ok((executable, origin))
    }

    fn load_cached(&self, cache: &CompileCache, key: &[u8; 32]) -> Result<Option<Executable>> {
        match cache.load(key)? {
            Some(bytes) => Ok(Some(self.deserialize(&bytes)?)),
            None => Ok(None),
        }
    }
}

fn keep(cache: &CompileCache, key: &[u8; 32], executable: &Executable) -> Result<()> {
    let bytes = executable.serialize()?;
    cache.store(key, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_entries() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CompileCache::in_folder(folder.path().join("new"));
        for n in 0..4u8 {
            cache.store(&[n; 32], &[n; 10]).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + u64::from(n));
            let file = std::fs::File::options()
                .write(true)
                .open(cache.entry(&[n; 32]))
                .unwrap();
            file.set_modified(time).unwrap();
        }
        cache.drop_oldest(2).unwrap();
        assert!(cache.load(&[0; 32]).unwrap().is_none());
        assert!(cache.load(&[1; 32]).unwrap().is_none());
        assert_eq!(cache.load(&[2; 32]).unwrap().unwrap(), [2; 10]);
        assert_eq!(cache.load(&[3; 32]).unwrap().unwrap(), [3; 10]);
    }

    /// Any single changed byte, and any cut, is noticed.
    #[test]
    fn refuses_damaged_entries() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CompileCache::in_folder(folder.path().to_owned());
        let key = [7; 32];
        cache.store(&key, b"code").unwrap();
        let good = std::fs::read(cache.entry(&key)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(cache.entry(&key), &bad).unwrap();
            assert!(cache.load(&key).is_err(), "byte {at} changed");
            std::fs::write(cache.entry(&key), &good[..at]).unwrap();
            assert!(cache.load(&key).is_err(), "cut to {at} bytes");
        }
        // The right content under another program's name.
        std::fs::write(cache.entry(&[8; 32]), &good).unwrap();
        assert!(cache.load(&[8; 32]).is_err());
    }
}

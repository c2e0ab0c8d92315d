//! A folder that all processes see, a file a key.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{Store, unreachable};
use crate::hash::hex;

/// The largest value that is read.
const MAX_VALUE: u64 = 1 << 30;

pub struct Files {
    folder: PathBuf,
}

impl Files {
    pub fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|error| unreachable(&format!("file:{}", folder.display()), error))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Keys may hold anything.
    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(hex(&Sha256::digest(key)))
    }
}

impl Store for Files {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        // Renamed into its place, so that nobody sees half of it.
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(value)?;
            file.persist(self.path(key))?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("cannot write to the store {}", self.address()))
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(key);
        let unreadable = || format!("cannot read from the store {}", self.address());
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let gone = || format!("the store {} has gone away", self.address());
                ensure!(self.folder.is_dir(), gone());
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(unreadable),
            Ok(metadata) => ensure!(
                metadata.len() <= MAX_VALUE,
                "a value of {} bytes in the store",
                metadata.len()
            ),
        }
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).with_context(unreadable),
        }
    }

    fn remove(&self, key: &str) -> Result<()> {
        match std::fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot write to the store {}", self.address()))
            }
            _ => Ok(()),
        }
    }

    fn address(&self) -> String {
        format!("file:{}", self.folder.display())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TimedOut;
    use super::*;

    #[test]
    fn what_is_put_is_got_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Files::open(&folder.path().join("store")).unwrap();
        assert_eq!(store.try_get("a/../b").unwrap(), None);
        store.put("a/../b", b"1").unwrap();
        store.put("a/../b", b"22").unwrap();
        assert_eq!(store.get("a/../b", Duration::ZERO).unwrap(), b"22");
        store.remove("a/../b").unwrap();
        store.remove("a/../b").unwrap();
        let error = store.get("a/../b", Duration::from_millis(20)).unwrap_err();
        assert!(error.is::<TimedOut>());
    }

    #[test]
    fn a_store_that_goes_away_is_said_to_have() {
        let folder = tempfile::tempdir().unwrap();
        let store = Files::open(folder.path()).unwrap();
        drop(folder);
        let error = store.get("key", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("has gone away"), "{error}");
        assert!(store.put("key", b"").is_err());
    }
}

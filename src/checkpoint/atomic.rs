//! Files that are either the old or the new, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What the name of every unfinished file or folder begins with. Only the
/// holder of a run's lock removes such leftovers.
pub const TEMP_PREFIX: &str = ".tmp-";

/// Writes a file in one piece: a temporary sibling, synced, then renamed over
/// `path`, then the folder synced. After an error, a kill or a power failure
/// `path` holds its old content or the new, whole.
///
/// # Errors
/// Those of the file system; the temporary file is then removed.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// [`write_file`] with a content that is produced piece by piece.
pub fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let (folder, temp) = temporary_sibling(path)?;
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temp)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        sync_dir(&folder)
    })();
    written.map_err(|error: io::Error| {
        // A temporary file of another live process is not ours to remove.
        if error.kind() != ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&temp);
        }
        anyhow::Error::new(error).context(format!("cannot write {}", path.display()))
    })
}

/// Makes the names inside a folder last: a rename or a new file in it survives
/// a power failure only after this.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes a file, a link (never what it points to) or a whole folder. That it
/// is not there is no error.
pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes all that is left of unfinished writes directly inside `folder`.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
            let path = entry.path();
            tracing::debug!("removing {}, left by an interrupted write", path.display());
            remove_any(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn temporary_sibling(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let name = path
        .file_name()
        .with_context(|| format!("{} names no file", path.display()))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temp = std::ffi::OsString::from(TEMP_PREFIX);
    temp.push(name);
    // Processes and threads that write the same file do not meet in one
    // temporary: the last rename wins.
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    temp.push(format!("-{}-{unique}", std::process::id()));
    Ok((folder.to_owned(), folder.join(temp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_file(&path, b"old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("a.json"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! Unpacking a wheel, which is a zip file.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Bounds for one wheel; the largest known one unpacks to 0.6 GB.
const MAX_BYTES: u64 = 4 << 30;
const MAX_FILES: usize = 50_000;

/// Unpacks into `folder`, which is made if need be. Nothing is written outside
/// of it, and links are refused.
pub fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    unpack_bounded(wheel, folder, MAX_BYTES)
        .with_context(|| format!("cannot unpack {}", wheel.display()))
}

fn unpack_bounded(wheel: &Path, folder: &Path, max_bytes: u64) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(File::open(wheel)?))?;
    ensure!(
        archive.len() <= MAX_FILES,
        "it holds {} files, more than {MAX_FILES}",
        archive.len()
    );
    std::fs::create_dir_all(folder)?;
    let mut left = max_bytes;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(name) = entry.enclosed_name() else {
            bail!("the name {:?} leads out of the folder", entry.name());
        };
        ensure!(!entry.is_symlink(), "{} is a link", name.display());
        let path = folder.join(&name);
        if entry.is_dir() {
            std::fs::create_dir_all(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mode = entry.unix_mode();
        let mut file = File::create(&path)?;
        // The sizes in the archive's directory are claims; this counts.
        let written = std::io::copy(&mut entry.by_ref().take(left + 1), &mut file)?;
        ensure!(written <= left, "it unpacks to more than {max_bytes} bytes");
        left -= written;
        file.flush()?;
        set_executable(&path, mode)?;
    }
    Ok(())
}

/// Tools in a wheel, such as ptxas, must stay executable.
#[cfg(unix)]
fn set_executable(path: &Path, mode: Option<u32>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if mode.is_some_and(|mode| mode & 0o111 != 0) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn set_executable(_path: &Path, _mode: Option<u32>) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::SimpleFileOptions;

    fn wheel(folder: &Path, entries: &[(&str, &[u8])]) -> std::path::PathBuf {
        let path = folder.join("x.whl");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default().unix_permissions(0o755))
                .unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn unpacks_files_in_folders() {
        let temp = tempfile::tempdir().unwrap();
        let wheel = wheel(temp.path(), &[("a/b.so", b"library"), ("c", b"")]);
        let folder = temp.path().join("out");
        unpack(&wheel, &folder).unwrap();
        assert_eq!(std::fs::read(folder.join("a/b.so")).unwrap(), b"library");
        assert!(folder.join("c").is_file());
    }

    #[test]
    fn refuses_names_that_lead_out() {
        let temp = tempfile::tempdir().unwrap();
        let wheel = wheel(temp.path(), &[("../../escaped", b"x")]);
        let error = unpack(&wheel, &temp.path().join("a/b")).unwrap_err();
        assert!(format!("{error:#}").contains("leads out"), "{error:#}");
        assert!(!temp.path().join("escaped").exists());
    }

    #[test]
    fn refuses_more_than_the_bound() {
        let temp = tempfile::tempdir().unwrap();
        let wheel = wheel(temp.path(), &[("zeros", &[0u8; 10_000])]);
        let error = unpack_bounded(&wheel, &temp.path().join("out"), 9_999).unwrap_err();
        assert!(format!("{error:#}").contains("more than 9999"), "{error:#}");
        unpack_bounded(&wheel, &temp.path().join("out"), 10_000).unwrap();
    }

    #[test]
    fn refuses_what_is_no_zip() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.whl");
        std::fs::write(&path, "not a wheel").unwrap();
        assert!(unpack(&path, &temp.path().join("out")).is_err());
    }
}

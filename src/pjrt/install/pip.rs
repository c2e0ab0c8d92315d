//! Downloads by the user's own pip.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use super::Wheel;
use crate::bad_input;

/// Downloads a wheel into `folder` and checks it.
///
/// # Errors
/// [`crate::error::BadInput`] with pip's last lines where it fails, and where
/// the file is not the pinned one.
pub fn download(wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let by_hand = format!(
        "Without a network here: `pip download {FLAGS} -d WHEELS {requirement}` elsewhere, bring \
         the folder WHEELS, and give PIP_NO_INDEX=1 PIP_FIND_LINKS=WHEELS to the same command"
    );
    let output = run_pip(&requirement, folder)
        .map_err(|error| bad_input!("cannot fetch {requirement}: {error}. {by_hand}"))?;
    if !output.status.success() {
        return Err(bad_input!(
            "pip cannot fetch {requirement}:\n{}\n{by_hand}",
            last_lines(&output.stderr, 5)
        ));
    }
    let file = folder.join(wheel.file);
    if !file.is_file() {
        return Err(bad_input!(
            "pip fetched another file of {requirement} than {}; its last lines:\n{}",
            wheel.file,
            last_lines(&output.stdout, 5)
        ));
    }
    let found = crate::hash::sha256_of_file(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    if found != wheel.sha256 {
        return Err(bad_input!(
            "{} has SHA-256 {found}, expected {}: it is not the file that this program was \
             tested with. Was it changed on the way, or by a mirror?",
            wheel.file,
            wheel.sha256
        ));
    }
    Ok(file)
}

/// One fixed Python tag, so that packages with a wheel for each version of
/// Python give the pinned one.
const FLAGS: &str = "--no-deps --only-binary=:all: --python-version 3.11";

/// The error is the reason in words.
fn run_pip(requirement: &str, folder: &Path) -> Result<Output, String> {
    for python in ["python3", "python"] {
        let run = Command::new(python)
            .args(["-m", "pip", "download"])
            .args(FLAGS.split(' '))
            .args([
                "--disable-pip-version-check",
                "--no-input",
                "--progress-bar=off",
            ])
            .arg("--dest")
            .arg(folder)
            .arg(requirement)
            .stdin(Stdio::null())
            .output();
        match run {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{python} cannot be run: {error}")),
            Ok(output) => return Ok(output),
        }
    }
    Err("python3 is not on the PATH, and its pip does the fetching".to_owned())
}

fn last_lines(output: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines() {
        assert_eq!(last_lines(b"a\n\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines(b"", 2), "");
    }
}

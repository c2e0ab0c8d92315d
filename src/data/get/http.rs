//! One file over HTTP, with resume.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ureq::Agent;
use ureq::http::Response;

use super::{Options, Progress, PublishedFile, check};
use crate::bad_input;

/// To be connected, and to hear of the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one connection's body: what is missing then is asked for anew.
const BODY: Duration = Duration::from_secs(600);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a try ended before the file was whole.
enum Failure {
    /// It may go better again.
    Passing(anyhow::Error),
    Final(anyhow::Error),
}

impl From<std::io::Error> for Failure {
    /// Of the disk.
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Brings the file into `folder` and checks it. What is there of it is kept.
///
/// # Errors
/// [`bad_input!`] if it is another file than the published one; an error if it
/// cannot be had.
pub fn fetch(
    url: &str,
    file: &PublishedFile,
    folder: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("xla-moco/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_recv_body(Some(BODY));
    let agent = Agent::new_with_config(config.build());
    let path = folder.join(file.name());
    let mut pause = options.pause;
    let mut tries = 0;
    loop {
        let before = length(&path);
        if before == file.bytes {
            return check(&path, file);
        }
        if before > file.bytes {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            continue;
        }
        let failure = match part(&agent, url, file, &path, before, progress) {
            Ok(()) => continue,
            Err(Failure::Final(error)) => return Err(error.context(format!("fetching {url}"))),
            Err(Failure::Passing(error)) => error,
        };
        if length(&path) > before {
            (tries, pause) = (0, options.pause);
        }
        tries += 1;
        if tries >= options.tries {
            return Err(failure.context(format!(
                "fetching {url}: given up after {tries} tries with {} of {} bytes; the same \
                 command goes on from there",
                length(&path),
                file.bytes
            )));
        }
        tracing::warn!("{url}: {failure:#}; trying again in {pause:?}");
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST);
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// One request, for what is missing from `start` on.
fn part(
    agent: &Agent,
    url: &str,
    file: &PublishedFile,
    path: &Path,
    start: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Failure> {
    let mut request = agent.get(url);
    if start > 0 {
        request = request.header("Range", format!("bytes={start}-"));
    }
    let response = request.call();
    let response = response.map_err(|error| Failure::Passing(anyhow!("{error}")))?;
    let status = response.status();
    let (start, total) = match status.as_u16() {
        // Also the answer of a server that knows no ranges.
        200 => (
            0,
            header(&response, "content-length").and_then(|len| len.parse().ok()),
        ),
        206 => {
            let range = header(&response, "content-range").unwrap_or_default();
            let total = range_total(range, start).ok_or_else(|| {
                Failure::Passing(anyhow!(
                    "asked for bytes from {start} on, it sends {range:?}"
                ))
            })?;
            (start, Some(total))
        }
        // Nothing from there on: what is here is of another file.
        416 => {
            fs::remove_file(path)?;
            return Err(Failure::Passing(anyhow!("the server says {status}")));
        }
        429 | 500.. => return Err(Failure::Passing(anyhow!("the server says {status}"))),
        _ => return Err(Failure::Final(anyhow!("the server says {status}"))),
    };
    if let Some(total) = total.filter(|total| *total != file.bytes) {
        return Err(Failure::Final(bad_input!(
            "the server's file has {total} bytes; the published one has {}",
            file.bytes
        )));
    }
    let mut out = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    out.set_len(start)?;
    append(response, &mut out, file, start, progress)
}

fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The file's length in `bytes START-END/LENGTH`, if START is the one wanted.
fn range_total(range: &str, start: u64) -> Option<u64> {
    let (part, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = part.split_once('-')?;
    (from.trim().parse() == Ok(start)).then(|| total.trim().parse().ok())?
}

fn append(
    response: Response<ureq::Body>,
    out: &mut File,
    file: &PublishedFile,
    start: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Failure> {
    use std::io::{Seek, SeekFrom};

    out.seek(SeekFrom::Start(start))?;
    // One byte more would be seen.
    let left = file.bytes - start + 1;
    let mut body = response.into_body().into_reader().take(left);
    let mut block = vec![0; 256 << 10];
    let mut done = start;
    let end = loop {
        match body.read(&mut block) {
            Ok(0) if done < file.bytes => {
                break Err(anyhow!("the connection ended at byte {done}"));
            }
            Ok(0) => break Ok(()),
            Ok(count) => {
                out.write_all(&block[..count])?;
                done += count as u64;
                progress(Progress {
                    file: file.name(),
                    done,
                    total: file.bytes,
                });
            }
            Err(error) => break Err(anyhow!("at byte {done}: {error}")),
        }
    };
    out.sync_all()?;
    if done > file.bytes {
        out.set_len(0)?;
        return Err(Failure::Final(bad_input!(
            "the server sends more than the {} bytes of the published file",
            file.bytes
        )));
    }
    end.map_err(Failure::Passing)
}

#[cfg(test)]
mod tests {
    use super::range_total;

    #[test]
    fn ranges() {
        for (range, start, expected) in [
            ("bytes 5-9/10", 5, Some(10)),
            ("bytes 4-9/10", 5, None),
            ("bytes 5-9/*", 5, None),
            ("5-9/10", 5, None),
            ("", 0, None),
        ] {
            assert_eq!(range_total(range, start), expected, "{range}");
        }
    }
}

//! One run of a job in a store that may hold what earlier runs left behind.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::Store;
use crate::hash::hex;

/// Between looks at the store.
const PAUSE: Duration = Duration::from_millis(20);

/// A store whose keys are this session's own.
pub struct Session {
    store: Arc<dyn Store>,
    name: String,
}

impl Session {
    /// Waits until all of `hosts` processes have joined; `host` is this one's
    /// number. Whatever an earlier job left in the store is not mistaken for a
    /// process of this one: host 0 names the session after what all hosts drew
    /// now, and it begins when each of them has seen its own draw in it.
    ///
    /// # Errors
    /// Names the hosts that have not joined within `timeout`; the store's own.
    pub fn join(
        store: Arc<dyn Store>,
        host: usize,
        hosts: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let draw = draw(host);
        let start = Instant::now();
        loop {
            let (name, missing) = match host {
                0 => gather(&*store, &draw, hosts)?,
                _ => answer(&*store, &draw, host)?,
            };
            if let Some(name) = name {
                return Ok(Self { store, name });
            }
            if start.elapsed() > timeout {
                bail!(
                    "host {host} has waited {timeout:?} in the store {} for {missing}",
                    store.address()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn key(&self, key: &str) -> String {
        format!("xla-moco/{}/{key}", self.name)
    }
}

/// Host 0's look at the store: the session's name once all have answered, else
/// whom it waits for.
fn gather(store: &dyn Store, own: &str, hosts: usize) -> Result<(Option<String>, String)> {
    let mut draws = vec![own.to_owned()];
    let mut missing = Vec::new();
    for host in 1..hosts {
        match store.try_get(&joined(host))? {
            Some(draw) => draws.push(String::from_utf8_lossy(&draw).into_owned()),
            None => missing.push(host),
        }
    }
    if missing.is_empty() {
        let draws = draws.join(" ");
        let name = hex(&Sha256::digest(&draws))[..16].to_owned();
        store.put(OFFER, format!("{name} {draws}").as_bytes())?;
        for host in 1..hosts {
            if store.try_get(&agreed(&name, host))?.is_none() {
                missing.push(host);
            }
        }
        if missing.is_empty() {
            store.put(&begun(&name), b"")?;
            return Ok((Some(name), String::new()));
        }
    }
    Ok((None, format!("hosts {missing:?} of {hosts} to join")))
}

/// Another host's look at the store.
fn answer(store: &dyn Store, own: &str, host: usize) -> Result<(Option<String>, String)> {
    store.put(&joined(host), own.as_bytes())?;
    let offer = store.try_get(OFFER)?.unwrap_or_default();
    let offer = String::from_utf8_lossy(&offer).into_owned();
    let mut words = offer.split(' ');
    let name = words.next().unwrap_or_default();
    if words.nth(host) != Some(own) {
        return Ok((None, "host 0 to open the session".into()));
    }
    store.put(&agreed(name, host), b"")?;
    match store.try_get(&begun(name))? {
        Some(_) => Ok((Some(name.to_owned()), String::new())),
        None => Ok((None, "the other hosts to join".into())),
    }
}

const OFFER: &str = "xla-moco/session";

fn joined(host: usize) -> String {
    format!("xla-moco/joined/{host}")
}

fn agreed(name: &str, host: usize) -> String {
    format!("xla-moco/{name}/agreed/{host}")
}

fn begun(name: &str) -> String {
    format!("xla-moco/{name}/begun")
}

/// A name that no other process has had: results do not depend on it.
fn draw(host: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    format!("{host}-{}-{nanos}", std::process::id())
}

impl Store for Session {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.put(&self.key(key), value)
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.try_get(&self.key(key))
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.store.remove(&self.key(key))
    }

    fn address(&self) -> String {
        self.store.address()
    }
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn join(folder: &std::path::Path, host: usize, hosts: usize) -> Result<Session> {
        let store = open(&format!("file:{}", folder.display()))?;
        Session::join(store, host, hosts, PATIENCE)
    }

    #[test]
    fn all_hosts_join_one_session_whatever_an_earlier_one_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut names = Vec::new();
        for _job in 0..2 {
            let sessions: Vec<Session> = std::thread::scope(|scope| {
                let joining: Vec<_> = (0..3)
                    .map(|host| scope.spawn(move || join(path, host, 3).unwrap()))
                    .collect();
                joining.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert!(sessions.iter().all(|s| s.name == sessions[0].name));
            sessions[1].put("key", b"value").unwrap();
            assert_eq!(sessions[2].get("key", PATIENCE).unwrap(), b"value");
            names.push(sessions[0].name.clone());
        }
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn hosts_that_do_not_come_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = || open(&format!("file:{}", folder.path().display())).unwrap();
        let wait = Duration::from_millis(50);
        let error = |host| {
            Session::join(store(), host, 3, wait)
                .err()
                .unwrap()
                .to_string()
        };
        assert!(error(2).contains("host 0 to open"), "{}", error(2));
        // Host 2 has joined, and left.
        assert!(error(0).contains("hosts [1] of 3"), "{}", error(0));
    }
}

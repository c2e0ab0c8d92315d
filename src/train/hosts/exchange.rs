//! Rows between hosts whose plugin cannot exchange them.
//!
//! A CPU plugin drives devices of its own process only. So that the loop of a
//! pod can be run, and tested, without one, each host makes up all devices and
//! runs the whole program; what other hosts would put on theirs comes through
//! the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::patience::wait;
use crate::pjrt::store::{Session, Store, TimedOut};

/// What was put is removed this many exchanges later: by then all have it,
/// since none can be more than one ahead.
const KEPT: usize = 2;

pub struct Exchange {
    store: Arc<Session>,
    host: usize,
    hosts: usize,
    patience: Duration,
    put: Mutex<VecDeque<String>>,
}

impl Exchange {
    pub fn new(store: Arc<Session>, host: usize, hosts: usize, patience: Duration) -> Self {
        Self {
            store,
            host,
            hosts,
            patience,
            put: Mutex::default(),
        }
    }

    /// Gives `own` to all hosts under a name used once; gives what all of them
    /// gave, joined in their order. Time in which the wait is `excused` does
    /// not count.
    ///
    /// # Errors
    /// [`TimedOut`] if a host has given nothing within the deadline: its number
    /// is in the error.
    pub fn join(
        &self,
        name: &str,
        own: &[u8],
        excused: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u8>> {
        let key = |host: usize| format!("{name}/{host}");
        self.store.put(&key(self.host), own)?;
        let mut all = Vec::new();
        for host in 0..self.hosts {
            if host == self.host {
                all.extend_from_slice(own);
                continue;
            }
            let theirs = self.get(&key(host), excused);
            all.extend(theirs.with_context(|| format!("host {host} has not brought its {name}"))?);
        }
        let mut put = self.put.lock().unwrap_or_else(|broken| broken.into_inner());
        put.push_back(key(self.host));
        if put.len() > KEPT
            && let Some(old) = put.pop_front()
        {
            self.store.remove(&old)?;
        }
        Ok(all)
    }

    fn get(&self, key: &str, excused: &mut dyn FnMut() -> bool) -> Result<Vec<u8>> {
        let mut late = None;
        let found = wait(self.patience, excused, |pause| {
            match self.store.get(key, pause) {
                Ok(value) => Ok(Some(value)),
                Err(error) => {
                    late = Some(error.downcast::<TimedOut>()?);
                    Ok(None)
                }
            }
        })?;
        match (found, late) {
            (Some(value), _) => Ok(value),
            (None, Some(late)) => Err(late.within(self.patience).into()),
            (None, None) => unreachable!("a wait takes at least one turn"),
        }
    }
}

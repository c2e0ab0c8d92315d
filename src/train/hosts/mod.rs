//! The processes that train together, each with its own devices.
//!
//! | module | what it does |
//! |---|---|
//! | `exchange` | rows between hosts whose plugin cannot: CPUs, which simulate a pod |
//! | `agreement` | all hosts are about to run the same; whoever differs is named |
//! | `heartbeat` | what each host last did, for those who wait for it |

mod agreement;
mod exchange;
mod heartbeat;
mod patience;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bad_input;
use crate::config::RunConfig;
use crate::pjrt::store::{self, Session};
use crate::pjrt::{Client, Rendezvous};

pub use agreement::{Stance, agree};
pub use exchange::Exchange;
pub use heartbeat::Heartbeat;
pub use patience::wait;

/// For all hosts to come.
const JOINING: Duration = Duration::from_secs(600);

/// One of several hosts that find each other through a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// As [`store::open`] takes it.
    pub coordinator: String,
    pub hosts: usize,
    /// This one's number, from 0.
    pub host: usize,
}

/// This process among those that train together.
#[derive(Clone)]
pub struct Hosts {
    /// From 0; host 0 writes the checkpoints.
    pub id: usize,
    pub count: usize,
    store: Option<Arc<Session>>,
    /// The devices of other hosts are made up by this one's plugin, as CPUs
    /// cannot talk to each other: each host runs the whole program, and the
    /// rows of the others come through the store.
    simulated: bool,
}

impl Hosts {
    /// Joins a job through its store, if there is one; a TPU's hosts know each
    /// other, and are told by [`Hosts::of`] then.
    pub fn join(job: Option<&Job>, pjrt: &str) -> Result<Self> {
        let Some(job) = job.filter(|job| job.hosts > 1) else {
            return Ok(Self::alone());
        };
        if job.host >= job.hosts {
            return Err(bad_input!(
                "--host-id is {} of --num-hosts {}; expected 0 to {}",
                job.host,
                job.hosts,
                job.hosts - 1
            ));
        }
        let store = store::open(&job.coordinator)?;
        tracing::info!("waiting for {} hosts at {}", job.hosts, job.coordinator);
        let session = Session::join(store, job.host, job.hosts, JOINING)?;
        Ok(Self {
            id: job.host,
            count: job.hosts,
            store: Some(Arc::new(session)),
            simulated: pjrt == "cpu",
        })
    }

    fn alone() -> Self {
        Self {
            id: 0,
            count: 1,
            store: None,
            simulated: false,
        }
    }

    /// With what the client knows of the job.
    ///
    /// # Errors
    /// If this process' devices do not lie together in the mesh.
    pub fn of(self, client: &Client) -> Result<Self> {
        let processes = client.processes();
        let count = processes.iter().max().map_or(1, |last| *last as usize + 1);
        if self.simulated || count <= 1 {
            return Ok(self);
        }
        ensure!(
            processes.is_sorted(),
            "the devices of the hosts lie mixed, in the order of their ids: {processes:?}; \
             each host's must lie together"
        );
        Ok(Self {
            id: client.process_index() as usize,
            count,
            ..self
        })
    }

    /// For plugins whose processes meet in a store.
    pub fn rendezvous(&self) -> Option<Rendezvous> {
        let store = self.store.clone().filter(|_| !self.simulated)?;
        Some(Rendezvous {
            process: self.id,
            processes: self.count,
            store,
        })
    }

    /// Whether this host writes checkpoints and evaluates.
    pub fn leads(&self) -> bool {
        self.id == 0
    }

    /// The rows of a batch that this host reads.
    pub fn rows(&self, batch: usize) -> Range<usize> {
        let share = batch / self.count;
        self.id * share..(self.id + 1) * share
    }

    /// Whether this process reaches only some of the devices.
    pub fn are_apart(&self) -> bool {
        self.count > 1 && !self.simulated
    }

    /// How the others' rows come here, where the plugin does not exchange them.
    pub fn exchange(&self, config: &RunConfig) -> Option<Exchange> {
        let store = self.store.clone().filter(|_| self.simulated)?;
        Some(Exchange::new(store, self.id, self.count, deadline(config)))
    }

    /// The folder of this host's own records: the run's for the leader.
    pub fn folder(&self, out: &Path) -> PathBuf {
        match self.leads() {
            true => out.to_owned(),
            false => heartbeat::folder(out).join(format!("host-{}", self.id)),
        }
    }

    /// # Errors
    /// [`bad_input!`] for a batch and devices that the hosts do not divide.
    pub fn check(&self, config: &RunConfig, client: Option<&Client>) -> Result<()> {
        let all = client.map_or(config.mesh.data, |client| client.processes().len());
        if self.are_apart() && all != config.mesh.data {
            return Err(bad_input!(
                "`mesh.data` is {}, but {} hosts have {all} devices; all of them take part: use \
                 --devices all",
                config.mesh.data,
                self.count
            ));
        }
        for (key, value) in [("batch", config.batch), ("mesh.data", config.mesh.data)] {
            if !value.is_multiple_of(self.count) {
                return Err(bad_input!(
                    "`{key}` is {value}, which {} hosts cannot share evenly",
                    self.count
                ));
            }
        }
        Ok(())
    }
}

/// What of a configuration all hosts must have alike: everything but where
/// pictures are and how they are read.
pub fn of_all(config: &RunConfig) -> String {
    let mut value = config.to_value();
    if let Some(all) = value.as_object_mut() {
        all.remove("about");
        if let Some(data) = all.get_mut("data").and_then(|data| data.as_object_mut()) {
            for own in ["path", "test", "workers", "prefetch"] {
                data.remove(own);
            }
        }
    }
    value.to_string()
}

/// How long a step may take until the run is given up.
pub fn deadline(config: &RunConfig) -> Duration {
    Duration::from_secs(config.mesh.deadline_seconds)
}

//! A run's folder, read as far as it is written, again and again.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::events::{Event, Severity};
use super::jsonl::{Tail, Tailed};
use super::series::Columns;
use crate::checkpoint::RunDir;
use crate::monitor::{Health, Monitor, Reading};

/// More events than this no reader wants; the newest stay.
const MOST_EVENTS: usize = 10_000;

/// How far a run is, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No process has told that it ended. One that was killed tells nothing.
    Going,
    Ended,
    Failed,
}

/// Everything that a run's folder tells. [`Follower::poll`] reads what has
/// come since, and starts over where a resume has cut the files.
pub struct Follower {
    run: RunDir,
    name: String,
    pub(super) config: Value,
    metrics: Tail,
    events_file: Tail,
    pub(super) columns: Columns,
    pub(super) events: Vec<Event>,
    monitor: Option<Monitor>,
}

impl Follower {
    /// Reads nothing yet.
    pub fn new(run: RunDir) -> Self {
        // The path as given may be `.`; what it names says more.
        let root = run.root().canonicalize();
        let root = root.unwrap_or_else(|_| run.root().to_owned());
        let name = root.file_name().unwrap_or(root.as_os_str());
        Follower {
            name: name.to_string_lossy().into_owned(),
            config: Value::Null,
            metrics: Tail::new(run.metrics_path()),
            events_file: Tail::new(run.events_path()),
            columns: Columns::default(),
            events: Vec::new(),
            monitor: None,
            run,
        }
    }

    /// Reads all that is there.
    pub fn read(run: RunDir) -> Result<Self> {
        let mut follower = Self::new(run);
        follower.poll()?;
        Ok(follower)
    }

    /// Reads what has come since the last call; says whether anything has.
    ///
    /// # Errors
    /// Files that cannot be read, and a config.json that is no JSON.
    pub fn poll(&mut self) -> Result<bool> {
        let mut news = false;
        if self.config.is_null() {
            self.config = self.run.read_config()?.unwrap_or(Value::Null);
            news |= !self.config.is_null();
        }
        let (columns, monitor, config) = (&mut self.columns, &mut self.monitor, &self.config);
        news |= self.metrics.poll(|tailed| match tailed {
            Tailed::Again => (*columns, *monitor) = (Columns::default(), None),
            Tailed::Line(line) => {
                let is_first = columns.last_step() == 0;
                if columns.take(&line) {
                    match (&mut *monitor, Reading::of(&line)) {
                        (Some(monitor), Some(reading)) => drop(monitor.observe(&reading)),
                        // The first line says how long an epoch is.
                        (monitor, _) if is_first => {
                            *monitor = Monitor::of_run(config, std::slice::from_ref(&line));
                        }
                        _ => {}
                    }
                }
            }
        })?;
        let events = &mut self.events;
        news |= self.events_file.poll(|tailed| match tailed {
            Tailed::Again => events.clear(),
            Tailed::Line(line) => {
                events.extend(serde_json::from_value::<Event>(line.into()));
                if events.len() > 2 * MOST_EVENTS {
                    events.drain(..MOST_EVENTS);
                }
            }
        })?;
        Ok(news)
    }

    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// The folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn set_name(&mut self, name: String) {
        self.name = name;
    }

    pub fn report_path(&self) -> PathBuf {
        self.run.report_path()
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.columns.last_step().into()
    }

    /// Steps of the whole run, where its configuration or events say so.
    pub fn total_steps(&self) -> Option<u64> {
        let told = |event: &Event| event.evidence.get("total_steps")?.as_u64();
        let written = self.config.pointer("/schedule/total_steps");
        let written = written.and_then(Value::as_u64);
        written.or_else(|| self.events.iter().rev().find_map(told))
    }

    pub fn phase(&self) -> Phase {
        let said = |event: &Event| match &event.kind[..] {
            "ended" => Some(Phase::Ended),
            "failed" => Some(Phase::Failed),
            "started" | "resumed" => Some(Phase::Going),
            _ => None,
        };
        let newest = self.events.iter().rev().find_map(said);
        newest.unwrap_or(Phase::Going)
    }

    pub fn health(&self) -> Health {
        super::health_of(self.monitor.as_ref())
    }

    /// The newest warnings and errors, at most `count`, oldest first.
    pub fn trouble(&self, count: usize) -> Vec<&Event> {
        let trouble = self.events.iter().rev();
        let trouble = trouble.filter(|event| event.severity != Severity::Info);
        let mut newest: Vec<&Event> = trouble.take(count).collect();
        newest.reverse();
        newest
    }
}

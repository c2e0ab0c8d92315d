//! `events.jsonl`: what happened, in words.

use std::time::SystemTime;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jsonl::{self, Appender, step_of};
use crate::checkpoint::{RunDir, utc};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC.
    pub time: String,
    /// The number of steps done when it happened.
    pub step: u64,
    /// What sort of thing, for programs: `started`, `resumed`, `heldout_knn`.
    pub kind: String,
    pub severity: Severity,
    /// What happened, for people.
    pub message: String,
    /// The numbers and names that show it.
    #[serde(flatten)]
    pub evidence: Map<String, Value>,
}

/// Appends to `events.jsonl`.
pub struct EventLog {
    lines: Appender,
}

impl EventLog {
    /// Opens the file of a run that begins (`None`: what is there is of a run
    /// that never reached a checkpoint, and goes) or goes on after the step of
    /// a checkpoint: later events are cut, and `resumed` is appended.
    pub fn open(run: &RunDir, resume_step: Option<u64>) -> Result<Self> {
        let path = run.events_path();
        jsonl::cut(&path, |line| {
            resume_step.is_some_and(|resume| step_of(line).is_some_and(|step| step <= resume))
        })?;
        let mut log = EventLog {
            lines: Appender::open(&path)?,
        };
        if let Some(step) = resume_step {
            let message = format!("resumed from the checkpoint of step {step}");
            log.append(step, "resumed", Severity::Info, message, Map::new())?;
        }
        Ok(log)
    }

    /// Appends an event that happens now. `evidence` has keys of its own, none
    /// of the five that every event has.
    pub fn append(
        &mut self,
        step: u64,
        kind: &str,
        severity: Severity,
        message: impl Into<String>,
        evidence: Map<String, Value>,
    ) -> Result<()> {
        self.lines.append(&Event {
            time: utc(SystemTime::now()),
            step,
            kind: kind.into(),
            severity,
            message: message.into(),
            evidence,
        })
    }
}

/// The events of a run; lines that are none are passed over.
pub fn read_events(run: &RunDir) -> Result<Vec<Event>> {
    let lines = jsonl::read(&run.events_path())?;
    let events = lines
        .into_iter()
        .map(|line| serde_json::from_value(line.into()));
    Ok(events.filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn evidence(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_resume_cuts_what_came_after_the_checkpoint_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let mut log = EventLog::open(&run, None).unwrap();
        for (step, kind) in [(0, "started"), (10, "loss_spike"), (20, "loss_spike")] {
            let evidence = evidence(json!({"loss": 9.5}));
            log.append(step, kind, Severity::Warning, "the loss jumped", evidence)
                .unwrap();
        }
        drop(log);
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(run.events_path())
            .unwrap();
        file.write_all(b"{\"time\":\"2026").unwrap();

        EventLog::open(&run, Some(10)).unwrap();
        let told = |run: &RunDir| -> Vec<(u64, String)> {
            let events = read_events(run).unwrap().into_iter();
            events.map(|e| (e.step, e.kind)).collect()
        };
        let expect = |list: &[(u64, &str)]| -> Vec<(u64, String)> {
            list.iter()
                .map(|&(step, kind)| (step, kind.into()))
                .collect()
        };
        assert_eq!(
            told(&run),
            expect(&[(0, "started"), (10, "loss_spike"), (10, "resumed")])
        );
        let spike = &read_events(&run).unwrap()[1];
        assert_eq!(spike.severity, Severity::Warning);
        assert_eq!(spike.evidence, evidence(json!({"loss": 9.5})));

        EventLog::open(&run, None).unwrap();
        assert_eq!(told(&run), []);
    }
}

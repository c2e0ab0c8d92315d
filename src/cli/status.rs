//! `xla-moco status`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::print;
use crate::checkpoint::RunDir;
use crate::error::Unhealthy;
use crate::monitor::Health;
use crate::report::{self, Event, Severity, read_events, read_metrics};

/// As many of the newest warnings and errors are shown.
const EVENTS: usize = 8;

/// Say whether a run is healthy, and why
///
/// Reads the run's folder alone, so it works at any time, also while the run
/// trains. Exits with 3 if the run has collapsed, diverged or stalled at
/// chance.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco status runs/quickstart
  xla-moco status runs/quickstart --json")]
pub struct Args {
    /// The run folder
    pub run: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let metrics = read_metrics(&run)?;
    let mut events = read_events(&run)?;
    let health = report::health(&run)?;
    events.retain(|event| event.severity != Severity::Info);
    let newest = events.split_off(events.len().saturating_sub(EVENTS));
    let known = known(&metrics);
    let text = match args.json {
        true => {
            let mut object = health.to_json();
            object["run"] = run.root().display().to_string().into();
            object["now"] = known.into();
            object["events"] = json!(newest);
            format!("{object}\n")
        }
        false => words(&health, &known, &newest)?,
    };
    print(&text)?;
    or_unhealthy(&health)
}

/// The error that makes the exit code 3, for a verdict that is.
pub(super) fn or_unhealthy(health: &Health) -> Result<()> {
    match health.verdict.is_fatal() {
        true => {
            let message = format!("the run is unhealthy: {}", health.verdict);
            Err(Unhealthy(message).into())
        }
        false => Ok(()),
    }
}

/// The newest value of each metric, those of now and then too.
fn known(metrics: &[Map<String, Value>]) -> Map<String, Value> {
    let mut known = Map::new();
    for line in metrics {
        for (key, value) in line.iter().filter(|(key, _)| *key != "nonfinite") {
            known.insert(key.clone(), value.clone());
        }
    }
    known
}

fn words(health: &Health, known: &Map<String, Value>, events: &[Event]) -> Result<String> {
    let mut text = format!("{}\n", health.verdict);
    for reason in &health.reasons {
        writeln!(text, "  {reason}")?;
    }
    writeln!(text)?;
    for (label, key, decimals) in [
        ("step", "step", 0),
        ("epoch", "epoch", 1),
        ("loss", "loss", 3),
        ("chance", "chance_loss", 3),
        ("kNN, %", "knn_top1", 1),
        ("keys found", "key_found", 3),
        ("output std", "output_std", 3),
        ("feature std", "feature_std", 3),
        ("effective rank", "effective_rank", 1),
        ("gradient norm", "grad_norm", 3),
    ] {
        match known.get(key) {
            None => {}
            Some(Value::Null) => writeln!(text, "{label:<15}not finite")?,
            Some(value) => {
                let value = value.as_f64().unwrap_or(f64::NAN);
                writeln!(text, "{label:<15}{value:.decimals$}")?;
            }
        }
    }
    if !events.is_empty() {
        writeln!(text, "\nnewest events")?;
    }
    for event in events {
        writeln!(text, "  step {}: {}", event.step, event.message)?;
    }
    Ok(text)
}

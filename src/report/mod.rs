//! What a run tells: metrics, events, TensorBoard, terminal, a page.
//!
//! Files of a run folder that this module writes:
//!
//! - `metrics.jsonl`: one object a line, exactly one line for each step
//!   ([`Record`], [`MetricsWriter`]).
//! - `events.jsonl`: what happened, in words ([`Event`], [`EventLog`]).
//! - `tensorboard/`: the metrics again, for TensorBoard ([`TensorBoard`]).
//! - `report.html`: one page made from the files above ([`write_html`]).
//!
//! All of them tell one story after a resume too: what came after the
//! checkpoint's step is cut before new lines are appended. Nothing here
//! affects results.

mod events;
mod html;
mod jsonl;
mod metrics;
mod svg;
mod tensorboard;
mod terminal;

use anyhow::Result;
pub use events::{Event, EventLog, Severity, read_events};
pub use html::write_html;
pub use metrics::{MetricsWriter, Record, read_metrics};
use serde_json::Value;
pub use tensorboard::TensorBoard;

use crate::checkpoint::RunDir;
use crate::monitor::{Health, Monitor, Verdict};

pub use terminal::{Progress, StepReport, init_logging, screen};

/// The verdict on a run, from its folder alone.
pub fn health(run: &RunDir) -> Result<Health> {
    let config = run.read_config()?.unwrap_or(Value::Null);
    Ok(health_of(&config, &read_metrics(run)?))
}

fn health_of(config: &Value, metrics: &[serde_json::Map<String, Value>]) -> Health {
    let monitor = Monitor::of_run(config, metrics);
    monitor.map_or_else(
        || Health {
            verdict: Verdict::TooEarly,
            reasons: Vec::new(),
            step: 0,
        },
        |monitor| monitor.health(),
    )
}

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
//! [`show`] writes a page of pictures: what a checkpoint makes of them.
//!
//! [`Follower`] reads them, also while they are written.
//!
//! All of them tell one story after a resume too: what came after the
//! checkpoint's step is cut before new lines are appended. Nothing here
//! affects results.

pub mod dashboard;
mod events;
mod follow;
mod jsonl;
mod metrics;
mod page;
mod refresh;
mod series;
mod serve;
pub mod show;
mod tensorboard;
mod terminal;

use anyhow::Result;
pub use events::{Event, EventLog, Severity, read_events};
pub use follow::{Follower, Phase};
pub use metrics::{MetricsWriter, Record, read_metrics};
pub use page::{Align, compare, page, write_html};
pub use refresh::Refresher;
pub use serve::{Shared as SharedRun, locked, serve};
pub use tensorboard::TensorBoard;

use crate::checkpoint::RunDir;
use crate::monitor::{Health, Monitor, Verdict};

pub use terminal::{Progress, StepReport, init_logging, screen};

/// The verdict on a run, from its folder alone.
pub fn health(run: &RunDir) -> Result<Health> {
    Ok(Follower::read(run.clone())?.health())
}

/// Before the first step there is no monitor.
fn health_of(monitor: Option<&Monitor>) -> Health {
    monitor.map_or_else(
        || Health {
            verdict: Verdict::TooEarly,
            reasons: Vec::new(),
            step: 0,
        },
        Monitor::health,
    )
}

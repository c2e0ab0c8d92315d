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

pub use events::{Event, EventLog, Severity, read_events};
pub use html::write_html;
pub use metrics::{MetricsWriter, Record, read_metrics};
pub use tensorboard::TensorBoard;
pub use terminal::{Progress, StepReport, init_logging, screen};

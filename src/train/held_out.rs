//! kNN on held-out pictures, between steps.

use anyhow::Result;

use crate::checkpoint::RunDir;
use crate::report::read_events;

/// The kind of its events.
pub const KIND: &str = "heldout_knn";

/// Accuracy in percent after each step where it was measured, from the run's
/// events.
pub fn history(run: &RunDir) -> Result<Vec<(u64, f64)>> {
    let events = read_events(run)?.into_iter();
    let mut history: Vec<(u64, f64)> = events
        .filter(|event| event.kind == KIND)
        .filter_map(|event| Some((event.step, event.evidence.get("knn_top1")?.as_f64()?)))
        .collect();
    history.sort_by_key(|&(step, _)| step);
    Ok(history)
}

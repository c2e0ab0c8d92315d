//! A loss that is not finite.

use super::support::{STEPS, Site};

/// A learning rate that no model survives: after the first step with it all is
/// infinite or NaN.
const DIVERGES: [&str; 4] = [
    "--set",
    "optimizer.base_lr=1e30",
    "--set",
    "schedule.warmup_steps=0",
];

#[test]
fn it_stops_the_run_where_that_is_asked_for() {
    let site = Site::new();
    let ended = site.train(&[&DIVERGES[..], &["--set", "on_unhealthy=stop"]].concat());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says(&["the run has diverged", "optimizer.base_lr"]);
    let told = site.events("non_finite_loss");
    assert_eq!(told.len(), 1);
    // What is known is written: the line of that step has no loss.
    let step = told[0]["step"].as_u64().unwrap() as usize;
    let lines = site.lines("metrics.jsonl");
    assert_eq!(lines.len(), step);
    assert!(lines[step - 1]["loss"].is_null());
    assert!(site.run().join("report.html").is_file());
}

#[test]
fn it_is_told_once_and_the_run_goes_on_otherwise() {
    let site = Site::new();
    site.trained(&DIVERGES);
    assert_eq!(site.lines("metrics.jsonl").len(), STEPS);
    assert_eq!(site.events("non_finite_loss").len(), 1);
}

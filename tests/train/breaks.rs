//! Runs that are broken off, and go on.

use std::process::Command;

use super::support::{Ended, STEPS, Site, text};

#[test]
fn stopped_and_resumed_is_as_unbroken() {
    let site = Site::new();
    let ended = site.trained(&["--steps", "9"]);
    assert!(
        ended.stdout.contains("after step 9 of 30"),
        "{}",
        ended.stdout
    );
    assert_eq!(site.checkpoints().last(), Some(&9));
    // Where it is already: nothing happens.
    let ended = site.trained(&["--steps", "9"]);
    assert!(ended.stdout.contains("nothing to do"), "{}", ended.stdout);
    // Intervals and threads may change.
    site.trained(&["--steps", "20", "--set", "checkpoint.every_steps=7"]);
    site.trained(&["--set", "data.workers=1", "--set", "monitor.knn_every=0"]);
    site.is_as_unbroken();
    assert_eq!(site.events("resumed").len(), 2);
    let told = site.events("other_machine");
    assert!(told.is_empty(), "{told:?}");
}

/// Killed at many moments: before the first checkpoint, between two, while
/// one is written, around an evaluation.
#[test]
fn killed_at_any_moment_and_resumed_is_as_unbroken() {
    let site = Site::new();
    for lines in [0, 2, 4, 5, 9, 10, 13, 16, 17, 21, 24, 29] {
        let mut running = site.start(&[]);
        if running.until(|| site.lines("metrics.jsonl").len() >= lines && site.run().is_dir()) {
            running.signal("KILL");
        }
        running.end();
    }
    site.trained(&[]);
    site.is_as_unbroken();
    let left = std::fs::read_dir(site.run()).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let is_temporary = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(".tmp");
    assert!(!names.iter().any(is_temporary), "{names:?}");
}

#[test]
fn a_signal_stops_after_the_step_with_a_checkpoint() {
    for signal in ["TERM", "INT"] {
        let site = Site::new();
        let mut running = site.start(&[]);
        if running.until(|| site.lines("metrics.jsonl").len() >= 2) {
            running.signal(signal);
        }
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let steps = site.lines("metrics.jsonl").len();
        assert_eq!(site.checkpoints().last(), Some(&(steps as u64)));
        if steps < STEPS {
            assert!(ended.stdout.contains("run the same command"), "{ended:?}");
        }
        site.trained(&[]);
        site.is_as_unbroken();
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::new();
    // The compilation that follows cannot be interrupted softly.
    let mut running = site.start(&["--no-compile-cache"]);
    assert!(running.until(|| !site.events("plugin").is_empty()));
    running.insist("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(128 + 15), "{ended:?}");
    site.trained(&[]);
    site.is_as_unbroken();
}

#[test]
fn fewer_cores_give_the_same_bits() {
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores < 2 || Command::new("taskset").arg("-V").output().is_err() {
        eprintln!("skipped: it takes two cores and taskset");
        return;
    }
    let site = Site::new();
    site.trained(&["--steps", "13"]);
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_xla-moco")]);
    let ended = Ended::of(command.args(site.arguments(&[])));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    site.is_as_unbroken();
    // Whether so small a model's bits depend on it or not: the thread pool is
    // as large as it was.
    let pools: Vec<_> = site
        .events("plugin")
        .iter()
        .map(|e| e["threads"].as_u64())
        .collect();
    assert_eq!(pools, [Some(cores as u64); 2]);
}

#[test]
fn more_devices_resume_and_say_that_bits_may_differ() {
    let site = Site::new();
    site.trained(&["--steps", "13"]);
    let ended = site.trained(&["--devices", "2"]);
    ended.says(&[
        "the number of devices was 1, is 2",
        "may differ in the last bits",
    ]);
    assert_eq!(site.lines("metrics.jsonl").len(), STEPS);
    assert_eq!(site.events("other_machine").len(), 1);
}

/// A run is one process at a time; the other is told who has it.
#[test]
fn a_second_process_is_refused() {
    let site = Site::new();
    let run = xla_moco::checkpoint::RunDir::create(site.run()).unwrap();
    let lock = run.lock().unwrap();
    let ended = site.train(&[]);
    let holder = format!("process {}", std::process::id());
    ended.refused(&[text(&site.run()), &holder, "--out"]);
    drop(lock);
    site.trained(&["--steps", "1"]);
}

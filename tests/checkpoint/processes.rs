//! Two processes and one run folder; a process that is killed.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xla_moco::checkpoint::{Retention, RunDir, Saver, list, load_latest, verify};
use xla_moco::error::BadInput;

use super::{large_state, origin, run_with};

/// Runs one test of this binary in a process of its own, with the folder in
/// its environment.
fn start(test: &str, run: &RunDir) -> Other {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(FOLDER, run.root())
        .stdout(Stdio::null())
        .spawn();
    Other(child.unwrap())
}

/// Killed when dropped, so that a failed assertion leaves no process behind.
struct Other(Child);

impl Other {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FOLDER: &str = "XLA_MOCO_TEST_RUN";

/// The folder, in the other process; `None` in the test run proper.
fn given_run() -> Option<RunDir> {
    let root = std::env::var(FOLDER).ok()?;
    Some(RunDir::create(root).unwrap())
}

fn wait_for(path: &Path, other: &mut Other) {
    while !path.exists() {
        assert!(
            other.0.try_wait().unwrap().is_none(),
            "the other process ended early"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Not a test by itself: the other process of the test below.
#[test]
fn hold_the_lock() {
    let Some(run) = given_run() else {
        return;
    };
    let _lock = run.lock().unwrap();
    fs::write(run.root().join("held"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_second_run_in_a_folder_is_refused_until_the_first_is_gone() {
    let (_folder, run) = run_with(&[10]);
    let mut other = start("processes::hold_the_lock", &run);
    wait_for(&run.root().join("held"), &mut other);
    // What the holder is writing must not be tidied away by the second.
    let temp = run.checkpoints_dir().join(".tmp-step-00000020");
    fs::create_dir(&temp).unwrap();
    let error = run.lock().unwrap_err();
    assert!(error.is::<BadInput>());
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", other.0.id())),
        "{text}"
    );
    assert!(text.contains("--out"), "{text}");
    assert!(temp.exists());

    // SIGKILL: the system gives the lock back.
    other.kill();
    let lock = run.lock().unwrap();
    assert!(!temp.exists());
    drop(lock);
    run.lock().unwrap();
}

/// Not a test by itself: saves step after step until it is killed.
#[test]
fn save_for_ever() {
    let Some(run) = given_run() else {
        return;
    };
    let _lock = run.lock().unwrap();
    let first = load_latest(&run)
        .unwrap()
        .map_or(1, |l| l.snapshot.step() + 1);
    let retention = Retention {
        keep_last: NonZeroUsize::new(2).unwrap(),
        keep_every: None,
        pinned: Default::default(),
    };
    let mut saver = Saver::new(&run, origin(), retention);
    for step in first.. {
        saver.save(move || Ok(large_state(step))).unwrap();
    }
}

#[test]
fn killed_at_any_instant_the_run_goes_on_from_a_whole_checkpoint() {
    let (_folder, run) = run_with(&[]);
    let mut newest = 0;
    for round in 0..12 {
        let mut other = start("processes::save_for_ever", &run);
        wait_for(&run.checkpoint_dir(newest + 2), &mut other);
        std::thread::sleep(Duration::from_micros(700 * round));
        other.kill();

        let _lock = run.lock().unwrap();
        for (step, path) in list(&run).unwrap() {
            assert_eq!(verify(&path).unwrap().step, step);
        }
        let loaded = load_latest(&run).unwrap().unwrap();
        assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
        newest = loaded.snapshot.step();
        assert_eq!(loaded.snapshot, large_state(newest));
        let left = fs::read_dir(run.checkpoints_dir()).unwrap().count();
        // Two to keep; a third where it died before the deletion.
        assert!((1..=3).contains(&left), "{left} folders are left");
    }
}

//! Saving, through errors, full disks and repeated steps.

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xla_moco::checkpoint::{
    Dtype, Origin, Retention, RunDir, Saver, Snapshot, load, load_latest, save,
};

use super::{names, origin, run_with, state, steps, tensor};

#[test]
fn a_step_saved_twice() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let created = |path: &Path| {
        fs::metadata(path.join("manifest.json"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let first = created(&path);

    // The same state: left alone.
    let again = save(&run, &state(24, 24), &origin()).unwrap();
    assert!(again.already_there);
    assert_eq!(created(&path), first);
    // The same state, but what is on disk has rotted: written again.
    let file = path.join("state.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(!save(&run, &state(24, 24), &origin()).unwrap().already_there);
    assert_eq!(load(&path).unwrap().1, state(24, 24));
    // Another state, another origin: replaced.
    assert!(!save(&run, &state(24, 99), &origin()).unwrap().already_there);
    assert_eq!(load(&path).unwrap().1, state(24, 99));
    assert!(
        !save(&run, &state(24, 99), &Origin::default())
            .unwrap()
            .already_there
    );
    assert_eq!(load(&path).unwrap().0.origin, Origin::default());
    assert_eq!(names(&run.checkpoints_dir()), ["step-00000024"]);
}

/// What a writer killed at each of its steps leaves behind.
#[test]
fn leftovers_of_a_killed_writer_are_put_in_order_by_the_lock() {
    let (_folder, run) = run_with(&[10, 20]);
    let checkpoints = run.checkpoints_dir();
    let at = |name: &str| checkpoints.join(name);
    // Killed while writing step 30, and while deleting step 5.
    fs::create_dir(at(".tmp-step-00000030")).unwrap();
    fs::write(at(".tmp-step-00000030").join("state.safetensors"), "half").unwrap();
    fs::create_dir(at(".tmp-deleted-step-00000005")).unwrap();
    fs::write(run.root().join(".tmp-config.json-1-0"), "{").unwrap();
    // Killed while replacing step 20, between the two renames.
    fs::rename(at("step-00000020"), at(".replaced-step-00000020")).unwrap();
    // Killed while replacing step 10, after both.
    fs::create_dir(at(".replaced-step-00000010")).unwrap();

    // A reader without the lock changes nothing and is not confused.
    assert_eq!(load_latest(&run).unwrap().unwrap().snapshot.step(), 10);
    assert_eq!(names(&checkpoints).len(), 5);

    let _lock = run.lock().unwrap();
    assert_eq!(names(&checkpoints), ["step-00000010", "step-00000020"]);
    assert_eq!(names(run.root()), ["checkpoints", "run.lock"]);
    assert_eq!(load_latest(&run).unwrap().unwrap().snapshot, state(20, 20));
    save(&run, &state(30, 30), &origin()).unwrap();
    assert_eq!(steps(&run), [10, 20, 30]);
}

#[test]
fn saver_saves_behind_the_loop_and_keeps_what_is_pinned() {
    let (_folder, run) = run_with(&[]);
    let retention = Retention {
        keep_last: NonZeroUsize::new(2).unwrap(),
        keep_every: NonZeroU64::new(40),
        pinned: [10].into(),
    };
    let mut saver = Saver::new(&run, origin(), retention);
    let mut told = Vec::new();
    for step in [10, 20, 30, 40, 50, 60] {
        if step == 30 {
            told.extend(saver.wait().unwrap());
            saver.pin(20);
        }
        if step == 60 {
            told.extend(saver.wait().unwrap());
            saver.unpin(20);
        }
        told.extend(saver.save(move || Ok(state(step, 0))).unwrap());
    }
    told.extend(saver.finish().unwrap());
    let saved: Vec<u64> = told.iter().map(|s| s.step).collect();
    assert_eq!(saved, [10, 20, 30, 40, 50, 60], "each is told once");
    let deleted: Vec<&[u64]> = told.iter().map(|s| &s.deleted[..]).collect();
    assert_eq!(deleted, [&[][..], &[], &[], &[], &[30], &[20]]);
    assert_eq!(steps(&run), [10, 40, 50, 60]);
}

#[test]
fn a_save_that_failed_is_told_at_the_next() {
    let (_folder, run) = run_with(&[10]);
    let retention = Retention {
        keep_last: NonZeroUsize::MIN,
        keep_every: None,
        pinned: Default::default(),
    };
    let mut saver = Saver::new(&run, origin(), retention);
    saver.save(|| anyhow::bail!("the device is gone")).unwrap();
    let error = saver.save(|| unreachable!("must not begin")).unwrap_err();
    assert!(error.to_string().contains("device is gone"), "{error:#}");
    saver.save(|| panic!("a bug")).unwrap();
    let error = saver.finish().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error:#}");
    assert_eq!(steps(&run), [10], "a failed save deletes nothing");
}

/// A file system of its own; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_names_the_bytes_and_leaves_the_earlier_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else {
        eprintln!("skipped: mounting a small tmpfs is not permitted here");
        return;
    };
    let run = RunDir::create(disk.0.join("run")).unwrap();
    save(&run, &state(10, 10), &origin()).unwrap();
    let big = |kib: usize| {
        let data = vec![7; kib << 10];
        Snapshot::new(20, vec![tensor("w", Dtype::U8, &[kib << 10], data)]).unwrap()
    };
    let error = save(&run, &big(2048), &origin()).unwrap_err();
    let text = format!("{error:#}");
    for word in [
        "disk full",
        "step 20",
        "bytes are needed",
        "bytes are free",
        "resume",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let needed: u64 = text
        .split(" bytes are needed")
        .next()
        .and_then(|t| t.rsplit(' ').next())
        .and_then(|n| n.parse().ok())
        .unwrap();
    assert!((2 << 20..3 << 20).contains(&needed), "{text}");
    assert_eq!(names(&run.checkpoints_dir()), ["step-00000010"]);
    assert_eq!(load_latest(&run).unwrap().unwrap().snapshot, state(10, 10));
    // Once there is room the same save succeeds.
    save(&run, &big(128), &origin()).unwrap();
    assert_eq!(steps(&run), [10, 20]);
}

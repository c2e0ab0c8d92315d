//! Checkpoints under everything that can happen to them: killed writers,
//! rotten bytes, links, full disks, a second run in the same folder.

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use xla_moco::checkpoint::{
    Dtype, HostTensor, Origin, Retention, RunDir, Saver, Snapshot, list, load, load_latest, open,
    save, verify,
};
use xla_moco::error::BadInput;

fn tensor(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> HostTensor {
    HostTensor {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        data,
    }
}

/// A state with every kind of tensor that a run has: matrix, scalar, ids, an
/// empty one, a type of one byte. `salt` sets its values.
fn state(step: u64, salt: u8) -> Snapshot {
    let bytes = |n: usize| (0..n).map(|i| (i as u8).wrapping_mul(37) ^ salt).collect();
    let tensors = vec![
        tensor("predictor.0.weight", Dtype::F32, &[5, 3], bytes(60)),
        tensor("queue.labels", Dtype::I32, &[7], bytes(28)),
        tensor("queue.valid", Dtype::BOOL, &[3], vec![1, 0, 1]),
        tensor("step", Dtype::I64, &[], step.to_le_bytes().to_vec()),
        tensor("none", Dtype::BF16, &[0, 4], vec![]),
    ];
    Snapshot::new(step, tensors).unwrap()
}

fn origin() -> Origin {
    Origin {
        config_fingerprint: "c0ffee".into(),
        plugin_name: "cpu".into(),
        device_count: 2,
        thread_count: 2,
        cpu_features: vec!["avx2".into(), "fma".into()],
        ..Origin::default()
    }
}

/// A run with checkpoints of these steps.
fn run_with(steps: &[u64]) -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    for &step in steps {
        save(&run, &state(step, step as u8), &origin()).unwrap();
    }
    (folder, run)
}

fn steps(run: &RunDir) -> Vec<u64> {
    list(run)
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Loading must fail as bad input with all these words in the message.
fn refused(path: &Path, words: &[&str]) {
    let error = load(path).expect_err("a checkpoint that is not sound was loaded");
    let text = format!("{error:#}");
    assert!(error.is::<BadInput>(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(verify(path).is_err() || text.contains("header"), "{text}");
}

#[test]
fn round_trip() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    assert!(path.ends_with("checkpoints/step-00000024"));
    assert_eq!(names(&path), ["manifest.json", "state.safetensors"]);
    let (manifest, snapshot) = load(&path).unwrap();
    assert_eq!(snapshot, state(24, 24));
    assert_eq!(manifest.origin, origin());
    assert_eq!(manifest.step, 24);
    let file = fs::read(path.join("state.safetensors")).unwrap();
    let sha256: String = Sha256::digest(&file)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(manifest.state_sha256, sha256);
    assert_eq!(manifest.state_bytes, file.len() as u64);
    assert_eq!(verify(&path).unwrap(), manifest);
    assert_eq!(open(&path).unwrap().snapshot, snapshot);
    assert_eq!(open(run.root()).unwrap().snapshot, snapshot);
}

/// Other programs read the state file: the format's own reader is one.
#[test]
fn the_state_file_is_safetensors() {
    let (_folder, run) = run_with(&[3]);
    let file = fs::read(run.checkpoint_dir(3).join("state.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut found: Vec<&str> = read.names();
    found.sort();
    assert_eq!(
        found,
        [
            "none",
            "predictor.0.weight",
            "queue.labels",
            "queue.valid",
            "step"
        ]
    );
    for t in state(3, 3).tensors() {
        let view = read.tensor(&t.name).unwrap();
        assert_eq!(
            (view.dtype(), view.shape()),
            (t.dtype, &t.shape[..]),
            "{}",
            t.name
        );
        assert_eq!(view.data(), t.data, "{}", t.name);
    }
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    assert_eq!(header % 8, 0, "the data must begin aligned");
}

#[test]
fn equal_state_makes_equal_bytes_whatever_the_order_given() {
    let (_a, first) = run_with(&[8]);
    let (_b, second) = run_with(&[]);
    let mut tensors = state(8, 8).into_tensors();
    tensors.reverse();
    let other = Origin {
        host: "elsewhere".into(),
        ..origin()
    };
    save(&second, &Snapshot::new(8, tensors).unwrap(), &other).unwrap();
    let file = |run: &RunDir| fs::read(run.checkpoint_dir(8).join("state.safetensors")).unwrap();
    assert_eq!(file(&first), file(&second));
}

#[test]
fn tensors_that_are_none_are_refused() {
    for (tensors, word) in [
        (vec![tensor("w", Dtype::F32, &[2], vec![0; 7])], "7"),
        (vec![tensor("w", Dtype::F32, &[usize::MAX, 2], vec![])], "w"),
        (
            vec![tensor("__metadata__", Dtype::U8, &[1], vec![0])],
            "reserved",
        ),
        (
            vec![
                tensor("w", Dtype::U8, &[1], vec![0]),
                tensor("w", Dtype::U8, &[1], vec![0]),
            ],
            "two tensors",
        ),
    ] {
        let text = format!("{:#}", Snapshot::new(0, tensors).unwrap_err());
        assert!(text.contains(word), "{text}");
    }
}

/// One byte of each part of each file, every bit of it: the header's length,
/// the header, its padding, each tensor, each field of the manifest.
#[test]
fn no_flipped_bit_is_taken_for_state() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let good = load(&path).unwrap();
    let flip = |file: &str, places: &dyn Fn(&[u8]) -> Vec<usize>| {
        let file = path.join(file);
        let whole = fs::read(&file).unwrap();
        for place in places(&whole) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[place] ^= 1 << bit;
                fs::write(&file, &bytes).unwrap();
                match load(&path) {
                    // White space between the manifest's words is no content.
                    Ok(loaded) => assert!(loaded == good && file.ends_with("manifest.json")),
                    Err(error) => assert!(error.is::<BadInput>(), "{error:#}"),
                }
            }
        }
        fs::write(&file, &whole).unwrap();
    };
    flip("state.safetensors", &|bytes| (0..bytes.len()).collect());
    flip("manifest.json", &|bytes| (0..bytes.len()).collect());
    assert_eq!(load(&path).unwrap(), good);
}

#[test]
fn a_file_cut_short_or_longer_is_refused() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    for (name, word) in [("state.safetensors", "bytes"), ("manifest.json", "damaged")] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        for keep in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 2] {
            fs::write(&file, &whole[..keep]).unwrap();
            refused(&path, &["step-00000024", word]);
        }
        let mut longer = whole.clone();
        longer.push(b'x');
        fs::write(&file, &longer).unwrap();
        refused(&path, &[word]);
        fs::remove_file(&file).unwrap();
        refused(&path, &["it has no", name]);
        fs::write(&file, &whole).unwrap();
    }
    load(&path).unwrap();
}

/// A manifest made to agree with a state file of anyone's choosing.
fn forge(path: &Path, state: &[u8], edit: impl FnOnce(&mut serde_json::Value)) {
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    fs::write(path.join("state.safetensors"), state).unwrap();
    let file = path.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    manifest["state_sha256"] = hex(state).into();
    manifest["state_bytes"] = state.len().into();
    edit(&mut manifest);
    manifest["manifest_sha256"] = "".into();
    manifest["manifest_sha256"] = hex(manifest.to_string().as_bytes()).into();
    fs::write(&file, manifest.to_string()).unwrap();
}

#[test]
fn headers_that_lie_are_refused_without_allocating_what_they_say() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let entry = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    // The forger is able: an honest file is loaded.
    forge(
        &path,
        &file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 8),
        |_| {},
    );
    assert_eq!(load(&path).unwrap().1.get("w").unwrap().shape, [2]);

    let huge = u64::MAX - 7;
    for (state, words) in [
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 4),
            "describes",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 12),
            "describes",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[3]", 0, 8)), 8),
            "safetensors",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 4, 12)), 12),
            "safetensors",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 8, 0)), 8),
            "safetensors",
        ),
        (
            file(
                &format!(r#"{{"w":{}}}"#, entry("[4611686018427387902]", 0, huge)),
                8,
            ),
            "safetensors",
        ),
        (
            file(
                &format!(r#"{{"w":{}}}"#, entry("[4294967296,4294967296]", 0, 8)),
                8,
            ),
            "safetensors",
        ),
        (
            file(
                &format!(
                    r#"{{"v":{},"w":{}}}"#,
                    entry("[2]", 0, 8),
                    entry("[2]", 4, 12)
                ),
                12,
            ),
            "safetensors",
        ),
        (
            file(
                r#"{"w":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
                8,
            ),
            "safetensors",
        ),
        (file("[]", 0), "safetensors"),
        (file(&"[".repeat(100_000), 0), "safetensors"),
        (huge.to_le_bytes().to_vec(), "header says"),
        (1u64.to_le_bytes().to_vec(), "header says"),
        (99_999_999u64.to_le_bytes().to_vec(), "header says"),
    ] {
        forge(&path, &state, |_| {});
        refused(&path, &["state.safetensors is damaged", words]);
    }
}

#[test]
fn another_version_or_step_is_refused() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let state = fs::read(path.join("state.safetensors")).unwrap();
    for version in [0, 2] {
        forge(&path, &state, |m| m["format_version"] = version.into());
        refused(
            &path,
            &[&format!("format version {version}"), "reads version 1"],
        );
    }
    // A later version may have fields that this build has never heard of.
    forge(&path, &state, |m| {
        m["format_version"] = 7.into();
        m["shards"] = 4.into();
    });
    refused(&path, &["format version 7"]);
    forge(&path, &state, |m| {
        m["format_version"] = 1.into();
        m.as_object_mut().unwrap().remove("shards");
        m["step"] = 25.into();
    });
    refused(&path, &["step 25", "step 24"]);
    fs::write(path.join("manifest.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    refused(&path, &["over"]);
}

#[cfg(unix)]
#[test]
fn links_and_things_that_are_no_folder_are_refused() {
    let (folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    refused(&path, &["no such folder"]);
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    refused(&path, &["link"]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "text").unwrap();
    refused(&path, &["no folder"]);
    fs::remove_file(&path).unwrap();

    fs::rename(&moved, &path).unwrap();
    for name in ["state.safetensors", "manifest.json"] {
        let (file, target) = (path.join(name), folder.path().join(name));
        fs::rename(&file, &target).unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
        refused(&path, &[name, "no regular file"]);
        fs::remove_file(&file).unwrap();
        fs::rename(&target, &file).unwrap();
    }
    load(&path).unwrap();
}

#[test]
fn the_newest_good_one_is_used_and_the_bad_ones_are_named() {
    let (_folder, run) = run_with(&[]);
    assert!(load_latest(&run).unwrap().is_none());
    let error = open(run.root()).unwrap_err();
    assert!(error.to_string().contains("no checkpoint yet"), "{error:#}");

    let (_folder, run) = run_with(&[10, 20, 30]);
    fs::write(run.checkpoint_dir(30).join("state.safetensors"), "short").unwrap();
    fs::remove_file(run.checkpoint_dir(20).join("manifest.json")).unwrap();
    let loaded = load_latest(&run).unwrap().unwrap();
    assert_eq!(loaded.snapshot, state(10, 10));
    assert_eq!(loaded.path, run.checkpoint_dir(10));
    assert_eq!(loaded.skipped.len(), 2);
    assert!(
        loaded.skipped[0].contains("step-00000030"),
        "{:?}",
        loaded.skipped
    );
    assert!(
        loaded.skipped[1].contains("step-00000020"),
        "{:?}",
        loaded.skipped
    );

    fs::remove_dir_all(run.checkpoint_dir(10)).unwrap();
    let error = load_latest(&run).unwrap_err();
    assert!(error.is::<BadInput>());
    assert!(error.to_string().contains("none of the 2"), "{error:#}");
}

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

/// Not a test by itself: the other process of the test below, which runs this
/// binary with the folder in the environment.
#[test]
fn hold_the_lock() {
    let Ok(root) = std::env::var("XLA_MOCO_TEST_LOCK") else {
        return;
    };
    let _lock = RunDir::create(&root).unwrap().lock().unwrap();
    fs::write(Path::new(&root).join("held"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn the_second_run_in_a_folder_is_refused_until_the_first_is_gone() {
    let (_folder, run) = run_with(&[10]);
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["hold_the_lock", "--exact"])
        .env("XLA_MOCO_TEST_LOCK", run.root())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let held = run.root().join("held");
    while !held.exists() {
        assert!(
            other.try_wait().unwrap().is_none(),
            "the other process ended early"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // What the holder is writing must not be tidied away by the second.
    let temp = run.checkpoints_dir().join(".tmp-step-00000020");
    fs::create_dir(&temp).unwrap();
    let error = run.lock().unwrap_err();
    assert!(error.is::<BadInput>());
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", other.id())), "{text}");
    assert!(text.contains("--out"), "{text}");
    assert!(temp.exists());

    // SIGKILL: the system gives the lock back.
    other.kill().unwrap();
    other.wait().unwrap();
    let lock = run.lock().unwrap();
    assert!(!temp.exists());
    drop(lock);
    run.lock().unwrap();
}

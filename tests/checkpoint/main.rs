//! Checkpoints under everything that can happen to them: killed writers,
//! rotten bytes, links, full disks, a second run in the same folder.

mod damage;
mod processes;
mod writing;

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use xla_moco::checkpoint::{
    Dtype, HostTensor, Origin, RunDir, Snapshot, list, load, open, save, verify,
};

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

/// A state of several hundred kilobytes, whose writing takes a while.
fn large_state(step: u64) -> Snapshot {
    let data = |salt: u64| (0..300_000u64).map(|i| (i * step + salt) as u8).collect();
    let tensors = (0..2).map(|i| tensor(&format!("w{i}"), Dtype::U8, &[300_000], data(i)));
    Snapshot::new(step, tensors.collect()).unwrap()
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

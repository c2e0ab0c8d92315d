//! `train` as two processes that are two hosts of one job: CPUs that exchange
//! their rows through a store.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

const STEPS: usize = 12;
/// For one process to end, on a machine that does other work too.
const PATIENCE: Duration = Duration::from_secs(240);

struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "batch": 16,
            "model": {"arch": "vit", "blocks": 1, "dim": 16, "heads": 2, "patch": 8,
                      "image_size": 16, "compute_dtype": "f32"},
            "method": {
                "projector": {"layers": 3, "hidden": 16, "out": 8},
                "predictor": {"layers": 2, "hidden": 16, "out": 8},
            },
            "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"total_steps": 100_000, "warmup_steps": 1},
            "data": {"synthetic": {"classes": 4, "images": 112, "test_images": 0, "size": 16}},
            "mesh": {"data": 4},
            "checkpoint": {"every_steps": 8},
            "monitor": {"knn_every": 4, "queue": 32},
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_xla-moco"))
            .args(["train", "--config"])
            .arg(self.path("config.json"))
            .arg("--out")
            .arg(self.path(out))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn host(&self, host: usize, more: &[&str]) -> Child {
        let store = format!("file:{}", self.path("store").display());
        let number = host.to_string();
        let job = [
            "--coordinator",
            &store,
            "--num-hosts",
            "2",
            "--host-id",
            &number,
        ];
        self.train("two", &[&job, more].concat())
    }

    fn lines(&self, metrics: &str) -> Vec<Json> {
        let text = std::fs::read_to_string(self.path(metrics)).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until a host's metrics have `steps` lines.
    fn wait_for(&self, metrics: &str, steps: usize) {
        let start = Instant::now();
        let lines = || std::fs::read_to_string(self.path(metrics)).unwrap_or_default();
        while lines().lines().count() < steps {
            assert!(
                start.elapsed() < PATIENCE,
                "{metrics} does not come to {steps} steps"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const LEADER: &str = "two/metrics.jsonl";
const OTHER: &str = "two/hosts/host-1/metrics.jsonl";

fn ended(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn losses(lines: &[Json]) -> Vec<f64> {
    lines
        .iter()
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

fn state(run: &Path, step: usize) -> Vec<u8> {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    std::fs::read(folder.join("state.safetensors")).unwrap()
}

/// Each host reads its share of the pictures only; together they are the batch
/// of one host, to the bit. So is a run that goes on from a checkpoint.
#[test]
fn two_hosts_train_as_one() {
    trains_as_one("optimizer_sharding=replicated");
}

/// The optimizer's state is split over the hosts' devices, and gathered for a
/// checkpoint.
#[test]
fn two_hosts_that_split_the_state_train_as_one() {
    trains_as_one("optimizer_sharding=zero1");
}

fn trains_as_one(set: &str) {
    let job = Job::new();
    let steps = STEPS.to_string();
    let one = ended(job.train("one", &["--steps", &steps, "--set", set]));
    assert!(one.status.success(), "{}", told(&one));
    for stop in ["5", &steps] {
        let hosts = [0, 1].map(|host| job.host(host, &["--steps", stop, "--set", set]));
        for output in hosts.map(ended) {
            assert!(output.status.success(), "{}", told(&output));
        }
    }
    let expected = losses(&job.lines("one/metrics.jsonl"));
    assert_eq!(expected.len(), STEPS);
    for metrics in [LEADER, OTHER] {
        let found = losses(&job.lines(metrics));
        assert_eq!(found, expected, "{metrics}");
    }
    assert_eq!(
        state(&job.path("two"), STEPS),
        state(&job.path("one"), STEPS)
    );
    // One writes.
    assert!(
        !job.path("two/hosts/host-1/checkpoints/step-00000012")
            .exists()
    );
}

#[test]
fn a_host_with_another_configuration_is_named() {
    let job = Job::new();
    let hosts = [
        job.host(0, &["--steps", "2"]),
        job.host(1, &["--steps", "2", "--set", "optimizer.base_lr=2e-3"]),
    ];
    for output in hosts.map(ended) {
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(
            told.contains("host 1 differs from host 0 in its configuration"),
            "{told}"
        );
        assert!(!told.contains("in its pictures"), "{told}");
    }
}

#[test]
fn a_signal_to_one_host_stops_all_after_the_same_step() {
    let job = Job::new();
    let hosts = [0, 1].map(|host| job.host(host, &[]));
    job.wait_for(OTHER, 3);
    signal(&hosts[1], "-TERM");
    for output in hosts.map(ended) {
        let told = told(&output);
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("stopped by a signal"), "{told}");
    }
    let (leader, other) = (job.lines(LEADER), job.lines(OTHER));
    assert_eq!(leader.len(), other.len());
    assert!(!state(&job.path("two"), leader.len()).is_empty());
}

#[test]
fn a_host_that_is_gone_is_told_with_its_last_step() {
    let job = Job::new();
    let deadline = ["--set", "mesh.deadline_seconds=5"];
    let [leader, mut other] = [0, 1].map(|host| job.host(host, &deadline));
    job.wait_for(LEADER, 3);
    other.kill().unwrap();
    other.wait().unwrap();
    let output = ended(leader);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "(train_step) is not done after 5s",
        "host 1: step ",
        "host 1 has not brought its",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_store_that_goes_away_and_a_host_too_many_are_said() {
    let job = Job::new();
    let hosts = [0, 1].map(|host| job.host(host, &[]));
    job.wait_for(LEADER, 3);
    std::fs::rename(job.path("store"), job.path("elsewhere")).unwrap();
    for output in hosts.map(ended) {
        let told = told(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("the store file:"), "{told}");
    }
    let output = ended(job.host(2, &[]));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output).contains("expected 0 to 1"),
        "{}",
        told(&output)
    );
    let output = ended(job.train("x", &["--num-hosts", "2"]));
    assert_eq!(output.status.code(), Some(2));
}

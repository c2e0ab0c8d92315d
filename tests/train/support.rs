//! A folder for a test, and the tiny run that all tests are about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Steps of the run.
pub const STEPS: usize = 30;
/// Pictures a step.
pub const BATCH: usize = 16;
/// Longest wait for something that a process is about to do.
const PATIENCE: Duration = Duration::from_secs(120);

fn config() -> Value {
    json!({
        "seed": 5,
        "batch": BATCH,
        "model": {
            "arch": "vit", "blocks": 1, "dim": 32, "heads": 2, "patch": 8, "image_size": 16,
            "compute_dtype": "f32"
        },
        "method": {
            "name": "moco_v3", "temperature": 0.2, "momentum": 0.9,
            "projector": { "hidden": 32, "out": 16 }, "predictor": { "hidden": 32, "out": 16 }
        },
        "optimizer": { "name": "adamw", "base_lr": 1e-2, "weight_decay": 0.1 },
        "schedule": { "total_steps": STEPS, "warmup_steps": 3 },
        "data": {
            "path": "synthetic",
            "synthetic": { "classes": 4, "images": 112, "test_images": 16, "size": 16 },
            "workers": 2
        },
        "checkpoint": { "every_steps": 4 },
        "monitor": { "knn_every": 5 },
        "eval": { "every_steps": 10, "knn_k": 5 }
    })
}

/// A folder with the configuration in it; `run` in it is the run's folder.
pub struct Site {
    folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.json"), config().to_string()).unwrap();
        Site { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    /// The arguments of `xla-moco train` here, into `run`.
    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (config, run) = (self.path("tiny.json"), self.run());
        let own = ["train", "--config", text(&config), "--out", text(&run)];
        own.iter()
            .chain(more)
            .map(|&word| word.to_owned())
            .collect()
    }

    /// Runs it to its end.
    pub fn train(&self, more: &[&str]) -> Ended {
        Ended::of(binary().args(self.arguments(more)))
    }

    /// As [`Site::train`]; it must go well.
    pub fn trained(&self, more: &[&str]) -> Ended {
        let ended = self.train(more);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// Begins to run it.
    pub fn start(&self, more: &[&str]) -> Running {
        let mut command = binary();
        command.args(self.arguments(more));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// The objects of a file of lines; none if it is not there.
    pub fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.run().join(file)).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// The events of a kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let mut events = self.lines("events.jsonl");
        events.retain(|event| event["kind"] == kind);
        events
    }

    /// The steps of the checkpoints.
    pub fn checkpoints(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.run().join("checkpoints")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut steps: Vec<u64> = names
            .map(|name| name.strip_prefix("step-").unwrap().parse().unwrap())
            .collect();
        steps.sort_unstable();
        steps
    }

    /// A file of the checkpoint of a step.
    pub fn checkpoint(&self, step: usize, file: &str) -> PathBuf {
        let folder = format!("checkpoints/step-{step:08}");
        self.run().join(folder).join(file)
    }

    /// Asserts that the run is done, and as if nothing had broken it off.
    pub fn is_as_unbroken(&self) {
        let Unbroken { state, losses } = unbroken();
        let own = fs::read(self.checkpoint(STEPS, "state.safetensors")).unwrap();
        assert!(own == *state, "the state differs from an unbroken run's");
        assert_eq!(self.losses(), *losses);
    }

    /// (step, loss) of each line of metrics.
    fn losses(&self) -> Vec<(u64, f64)> {
        let lines = self.lines("metrics.jsonl").into_iter();
        lines
            .map(|line| {
                (
                    line["step"].as_u64().unwrap(),
                    line["loss"].as_f64().unwrap(),
                )
            })
            .collect()
    }
}

/// A run that nothing breaks off: its last state, and its losses by step.
struct Unbroken {
    state: Vec<u8>,
    losses: Vec<(u64, f64)>,
}

fn unbroken() -> &'static Unbroken {
    static UNBROKEN: OnceLock<Unbroken> = OnceLock::new();
    UNBROKEN.get_or_init(|| {
        let site = Site::new();
        site.trained(&[]);
        let losses = site.losses();
        assert_eq!(losses.len(), STEPS);
        let state = fs::read(site.checkpoint(STEPS, "state.safetensors")).unwrap();
        Unbroken { state, losses }
    })
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xla-moco"));
    command.env_remove("XLA_MOCO_LOG").env_remove("NPROC");
    command
}

/// Makes a folder of pictures in class folders.
pub fn synth(folder: &Path, classes: u32, images: u32) {
    let numbers = [classes, images].map(|n| n.to_string());
    let ended = Ended::of(
        binary()
            .args(["data", "synth", "--size", "16", "--out", text(folder)])
            .args(["--classes", &numbers[0], "--images", &numbers[1]]),
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// None: by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    /// Asserts that it was refused as the user's to mend, in these words.
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        self.says(words);
    }

    /// Asserts that the error output has all these words.
    pub fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {}", self.stderr);
        }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// A process under way; killed when dropped, so that a failed assertion leaves
/// none behind.
pub struct Running(Option<Child>);

impl Running {
    /// Waits until `reached`; false if the process ended before.
    pub fn until(&mut self, mut reached: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !reached() {
            if self.child().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "nothing came");
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// `TERM`, `INT` or `KILL`.
    pub fn signal(&mut self, name: &str) {
        let id = self.child().id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    /// Sends it again and again until the process has ended.
    pub fn insist(&mut self, name: &str) {
        let start = Instant::now();
        while self.child().try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end");
            self.signal(name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn end(mut self) -> Ended {
        let child = self.0.take().unwrap();
        child.wait_with_output().unwrap().into()
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! Run folders made up line by line, as docs/run-folder.md has them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

pub fn xla_moco(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Exit code, stdout, stderr.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// With the configuration of the quick start, but for the batch.
    pub fn new(root: &Path, name: &str, batch: u64) -> Self {
        let path = root.join(name);
        fs::create_dir_all(path.join("checkpoints")).unwrap();
        let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.json");
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(quickstart).unwrap()).unwrap();
        config["batch"] = batch.into();
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        Folder { path }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn append(&self, name: &str, text: &str) {
        use std::io::Write;
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Lines of steps `from` to `to`; `more` adds to each.
    pub fn steps(&self, from: u64, to: u64, more: impl Fn(u64) -> Value) {
        let mut text = String::new();
        for step in from..=to {
            let mut line = json!({
                "step": step, "epoch": step as f64 / 100.0, "loss": 6.0 - 0.001 * (step % 1000) as f64,
                "chance_loss": 5.545, "lr": 1e-3, "momentum": 0.99, "images_per_second": 800.0,
                "input_wait": 0.01, "seconds": step as f64,
            });
            let more = more(step);
            line.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let _ = writeln!(text, "{line}");
        }
        self.append("metrics.jsonl", &text);
    }

    pub fn event(&self, step: u64, kind: &str, severity: &str, message: &str) {
        let line = json!({
            "time": "2026-11-26T11:12:26Z", "step": step, "kind": kind, "severity": severity,
            "message": message,
        });
        self.append("events.jsonl", &format!("{line}\n"));
    }

    /// Makes the report and reads it.
    pub fn page(&self) -> String {
        let output = xla_moco(&["report", "."], &self.path);
        assert_eq!(said(&output).0, 0, "{output:?}");
        fs::read_to_string(self.file("report.html")).unwrap()
    }
}

/// The numbers of a page.
pub fn numbers(page: &str) -> Value {
    let begin = "<script type=\"application/json\" id=\"data\">";
    let (_, rest) = page.split_once(begin).expect("a page has its numbers");
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

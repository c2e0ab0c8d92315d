//! `watch` where stdout is no terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use super::folder::{Folder, said, xla_moco};

#[test]
fn it_follows_a_run_line_by_line_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let run = Folder::new(root.path(), "mine", 64);
    run.event(0, "started", "info", "starting");
    let mut child = Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(["watch", "mine", "--every", "0.1"])
        .current_dir(root.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(|line| line.unwrap());
    assert_eq!(next().unwrap(), "no step has been recorded yet");
    run.steps(1, 10, |_| json!({ "knn_top1": 12.5 }));
    let line = next().unwrap();
    assert!(
        line.starts_with("step 10/") && line.contains("loss 5.990 (chance 5.545)  kNN 12.5%"),
        "{line}"
    );
    // A resume cuts the file: what is told is what it holds now.
    std::fs::remove_file(run.file("metrics.jsonl")).unwrap();
    run.steps(1, 4, |_| json!({}));
    while let Some(line) = next() {
        if line.starts_with("step 4/") {
            break;
        }
    }
    run.append(
        "metrics.jsonl",
        "{\"step\":5,\"epoch\":0.05,\"loss\":null,\"nonfinite\":[\"loss\"]}\n",
    );
    run.event(5, "ended", "info", "done");
    let rest: Vec<String> = std::iter::from_fn(next).collect();
    assert!(rest.last().unwrap().ends_with("diverged"), "{rest:?}");
    // As `status` has it.
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_run_that_has_ended_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    let run = Folder::new(root.path(), "mine", 64);
    run.steps(1, 7, |_| json!({}));
    run.event(7, "ended", "info", "done");
    let (code, out, _) = said(&xla_moco(&["watch", "mine"], root.path()));
    assert_eq!(code, 0);
    assert!(
        out.starts_with("step 7/") && out.lines().count() == 1,
        "{out}"
    );
    for (args, expected) in [
        (&["watch", "nowhere"][..], "there is no run folder nowhere"),
        (
            &["watch", "mine", "--every", "0"],
            "expected 0.1 to 86400 seconds",
        ),
    ] {
        let (code, _, err) = said(&xla_moco(args, root.path()));
        assert_eq!(code, 2);
        assert!(err.contains(expected), "{err}");
    }
}

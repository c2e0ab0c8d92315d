//! The results ledger: that the repository's is whole, that the pages under
//! docs/results are made of it, and `reproduce` on a small one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::ledger::{Entry, Ledger};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reproduce(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .arg("reproduce")
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap()
}

/// Fails unless it ended with this code and these words.
fn ended(output: &Output, code: i32, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(words), "expected {words:?} in: {told}");
}

fn ledger() -> Ledger {
    Ledger::read(&root().join("results/ledger.jsonl")).unwrap()
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

#[test]
fn every_entry_says_how_to_get_its_numbers_again() {
    for entry in ledger().entries {
        let id = &entry.id;
        assert_eq!(entry.commands.is_empty(), entry.source.is_some(), "{id}");
        assert!(!entry.protocol.is_empty(), "{id}");
        for command in &entry.commands {
            let config = command.iter().position(|argument| argument == "--config");
            if let Some(at) = config {
                RunConfig::load(&root().join(&command[at + 1]), &[]).unwrap();
            }
            let pictures = command.iter().any(|argument| argument == "{data}");
            assert!(!pictures || entry.data.is_some(), "{id}: which pictures?");
        }
        for (name, number) in &entry.numbers {
            assert_eq!(number.read.is_none(), entry.source.is_some(), "{id} {name}");
            let values = number.values();
            if values.len() > 1 {
                let spread = deviation(&values);
                assert!(number.within >= spread, "{id} {name}: spread {spread}");
            }
        }
        let measured: BTreeSet<u64> = entry
            .numbers
            .values()
            .flat_map(|number| number.seeds.keys().copied())
            .collect();
        assert!(
            entry.runs.keys().all(|seed| measured.contains(seed)),
            "{id}"
        );
    }
}

#[test]
fn the_pages_are_made_of_the_ledger() {
    ended(&reproduce(&["--docs", "--check"]), 0, "");
    let pages = fs::read_dir(root().join("docs/results")).unwrap();
    for page in pages {
        let page = page.unwrap().path();
        let template = root().join("results").join(page.file_name().unwrap());
        assert!(template.is_file(), "{} has no template", page.display());
    }
}

/// Continuous integration runs the experiment that needs no pictures and takes
/// the least time.
#[test]
fn the_cheapest_is_run_again_by_ci() {
    let needs_nothing = |entry: &&Entry| entry.data.is_none() && !entry.runs.is_empty();
    let seconds = |entry: &Entry| entry.runs.values().next().unwrap().seconds;
    let ledger = ledger();
    let entries = ledger.entries.iter().filter(needs_nothing);
    let cheapest = entries
        .min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
        .unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let command = format!("reproduce {}", cheapest.id);
    assert!(ci.contains(&command), "expected {command} in .ci/run");
}

/// A few steps on a few pictures, and the probe of it.
fn small(folder: &Path) -> std::path::PathBuf {
    let tiny = r#"model={"arch":"vit","blocks":1,"dim":16,"heads":2,"patch":8,"image_size":16,"compute_dtype":"f32"}"#;
    let pictures = r#"data.synthetic={"classes":4,"images":64,"test_images":32,"size":16}"#;
    let train = [
        "train",
        "--config",
        "configs/quickstart.json",
        "--steps",
        "3",
        "--seed",
        "{seed}",
        "--out",
        "{out}/tiny-{seed}",
        "--set",
        tiny,
        "--set",
        pictures,
        "--set",
        "batch=16",
    ];
    let probe = [
        "probe",
        "--checkpoint",
        "{out}/tiny-{seed}",
        "--fast",
        "--epochs",
        "2",
        "--batch",
        "16",
        "--lr",
        "0.1",
        "--json",
    ];
    let number = |read: Json| json!({"unit": "%", "digits": 1, "within": 1e-9, "read": read});
    let entry = json!({
        "id": "tiny/probe", "what": "a probe of three steps", "commands": [train, probe],
        "protocol": {"epochs": 2},
        "numbers": {
            "top1": number(json!({"json": "/top1"})),
            "knn@3": number(json!({"event": {"kind": "heldout_knn", "key": "knn_top1", "step": 3}})),
            "loss": number(json!({"metric": {"key": "loss", "step": 3, "since": 0}})),
        },
    });
    let with_pictures = json!({
        "id": "tiny/pictures", "what": "needs pictures",
        "commands": [["train", "--data", "{data}", "--out", "{out}/never"]],
        "data": {"name": "cifar10", "fingerprint": "0".repeat(64)},
        "protocol": {"steps": 1}, "numbers": {},
    });
    let elsewhere = json!({
        "id": "tiny/elsewhere", "what": "another's", "source": "a paper",
        "protocol": {"steps": 1}, "numbers": {},
    });
    let path = folder.join("ledger.jsonl");
    let lines: Vec<String> = [entry, with_pictures, elsewhere]
        .iter()
        .map(Json::to_string)
        .collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

#[test]
fn an_experiment_is_recorded_and_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path());
    let at = path.to_str().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [first, second] = [out("first"), out("second")];
    let id = "tiny/probe";
    let recorded = reproduce(&[
        id, "--ledger", at, "--out", &first, "--seed", "0,1", "--record",
    ]);
    ended(&recorded, 0, "not in the ledger yet");

    // Read by hand from the run itself.
    let metrics = fs::read_to_string(Path::new(&first).join("tiny-1/metrics.jsonl")).unwrap();
    let losses: Vec<f64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<Json>(line).unwrap()["loss"]
                .as_f64()
                .unwrap()
        })
        .collect();
    assert_eq!(losses.len(), 3);
    let entry = Ledger::read(&path).unwrap().get(id).unwrap().clone();
    let found = entry.numbers["loss"].seeds[&1];
    assert!((found - losses.iter().sum::<f64>() / 3.0).abs() < 1e-12);
    assert_eq!(entry.numbers["top1"].seeds.len(), 2);
    assert_eq!(entry.runs[&0].checkpoint.len(), 64);
    assert_ne!(entry.runs[&0].checkpoint, entry.runs[&1].checkpoint);

    // Again, elsewhere: the same bits.
    let again = reproduce(&[
        id, "--ledger", at, "--out", &second, "--seed", "1", "--json",
    ]);
    let report: Json = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&report["holds"], &report["checkpoints"][0]["same_bits"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(report["numbers"].as_array().unwrap().len(), 3);

    // Another number than the ledger's is told.
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines[0]["numbers"]["loss"]["seeds"]["1"] = json!(found + 1.0);
    let lines: Vec<String> = lines.iter().map(Json::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let off = reproduce(&[id, "--ledger", at, "--out", &second, "--seed", "1"]);
    ended(&off, 1, "DOES NOT HOLD");
    ended(&off, 1, "1 of 3 numbers of tiny/probe");
}

#[test]
fn what_cannot_be_run_again_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path());
    let ledger = ["--ledger", path.to_str().unwrap()];
    let missing = folder.path().join("nothing");
    let missing = ["--ledger", missing.to_str().unwrap()];
    let cases: [(&[&str], &str); 5] = [
        (&["tiny/elsewhere"], "was not measured by this program"),
        (&["tiny/prob"], "the nearest is tiny/probe"),
        (&["tiny/pictures"], "needs the pictures of cifar10"),
        (
            &["tiny/pictures", "--data", "synthetic:K=2,N=8,px=8"],
            "are not those of cifar10",
        ),
        (&["--record"], "<ID>"),
    ];
    for (arguments, words) in cases {
        ended(&reproduce(&[arguments, &ledger].concat()), 2, words);
    }
    ended(
        &reproduce(&missing),
        2,
        "run this in a clone of the repository",
    );
    ended(&reproduce(&ledger), 0, "tiny/elsewhere");
}

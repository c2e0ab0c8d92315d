//! `xla-moco compile` and `plan`: the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

fn written(folder: &Path, batch: usize) -> PathBuf {
    let path = folder.join("config.json");
    let config = json!({
        "batch": batch,
        "model": {"arch": "vit", "blocks": 1, "dim": 16, "heads": 2, "patch": 8, "image_size": 16},
        "method": {
            "projector": {"layers": 3, "hidden": 16, "out": 8},
            "predictor": {"layers": 2, "hidden": 16, "out": 8},
        },
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": 10, "warmup_steps": 1},
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn compile(config: &Path, target: &str, more: &[&str]) -> Output {
    run("compile", config, target, more)
}

fn run(command: &str, config: &Path, target: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args([command, "--core", "--config"])
        .arg(config)
        .args(["--target", target])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn a_target_is_reported_as_one_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(folder.path(), 8);
    let output = compile(
        &config,
        "cpu:2",
        &["--json", "--price-per-device-hour", "3"],
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["fits"], true);
    assert_eq!(report["devices"], 2);
    assert_eq!(report["lowering"], "unrolled");
    for key in [
        "temp_bytes",
        "argument_bytes",
        "output_bytes",
        "alias_bytes",
    ] {
        assert!(
            report[key].as_u64().is_some_and(|n| n > 0),
            "{key}: {report}"
        );
    }
    // The CPU's compiler has no cost model.
    for key in ["estimated_seconds", "flops", "bytes_accessed"] {
        assert_eq!(report.get(key), Some(&Json::Null), "{key}");
    }
    assert!(report["roofline_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["pace_from"], "roofline");
    let seconds = report["roofline_seconds"].as_f64().unwrap();
    let close = |key: &str, expected: f64| {
        let found = report[key].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-9, "{key}: {found}");
    };
    close("images_per_second", 8.0 / seconds);
    // 1,281,167 pictures in whole batches of 8.
    let hours = 160_145.0 * 100.0 * seconds / 3600.0;
    close("hours_per_100_epochs", hours);
    close("price_per_100_epochs", hours * 2.0 * 3.0);
    let reduced = &report["collectives"]["all-reduce"];
    assert!(reduced["bytes"].as_u64().unwrap() > 0, "{report}");
    let places = report["collectives_by_scope"].as_array().unwrap();
    let is_key = |place: &&Json| {
        place["kind"] == "all-gather" && place["scope"].as_str().unwrap().starts_with("loss/")
    };
    // Each view's keys.
    assert_eq!(places.iter().find(is_key).unwrap()["count"], 2);
}

#[test]
fn unknown_targets_and_batches_that_do_not_divide_are_the_users_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(folder.path(), 8);
    for (target, words) in [
        ("tpu:v9:2x2", ["v5e", "v3:8x16"]),
        ("cpu:3", ["`batch` (8)", "6, 9"]),
        ("cpu:16", ["`batch` (8)", "16"]),
    ] {
        let output = compile(&config, target, &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{target}: {told}");
        for word in words {
            assert!(told.contains(word), "{target}: {told}");
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_plan_recommends_what_fits_and_a_second_one_compiles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // No other test asks for this one, which then could be in the cache or not.
    let config = written(folder.path(), 12);
    let chosen = folder.path().join("chosen.json");
    let plan = |more: &[&str]| {
        let output = run("plan", &config, "cpu:2", &[&["--json"], more].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    let first = plan(&["--write", chosen.to_str().unwrap()]);
    let tried = first["tried"].as_array().unwrap();
    let lowerings = |sharding: &str| {
        let of = |trial: &&Json| trial["optimizer_sharding"] == sharding;
        tried
            .iter()
            .filter(of)
            .map(|t| t["lowering"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lowerings("replicated"),
        ["unrolled", "remat_mlp", "remat_attention", "remat", "scan"]
    );
    assert_eq!(lowerings("zero1").len(), 1);
    // Recomputation is work, and a loop no less of it.
    let seconds = |i: usize| tried[i]["ranked_seconds"].as_f64().unwrap();
    assert!(seconds(0) < seconds(1) && seconds(1) < seconds(3));
    assert_eq!(seconds(3), seconds(4));
    assert_eq!(first["recommended"]["lowering"], "unrolled");

    let written: Json = serde_json::from_slice(&std::fs::read(&chosen).unwrap()).unwrap();
    assert_eq!(written["lowering"], "unrolled");
    assert_eq!(written["mesh"]["data"], 2);
    let again = run(
        "plan",
        &config,
        "cpu:2",
        &["--write", chosen.to_str().unwrap()],
    );
    assert_eq!(again.status.code(), Some(2));

    // How long the compiler took is measured: equal only where it was not asked.
    assert_eq!(plan(&[]), first);
}

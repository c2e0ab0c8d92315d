//! What a run leaves and says.

use std::fs;

use super::support::{BATCH, STEPS, Site, synth, text};

#[test]
fn a_run_leaves_the_files_of_the_contract() {
    let site = Site::new();
    let ended = site.trained(&[]);
    for line in [
        "held-out kNN: ",
        "images/s",
        "input wait",
        "run folder: ",
        "next:",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }

    let lines = site.lines("metrics.jsonl");
    let steps: Vec<_> = lines
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=STEPS as u64).collect::<Vec<_>>());
    for line in &lines {
        for key in [
            "epoch",
            "loss",
            "chance_loss",
            "lr",
            "momentum",
            "images_per_second",
            "input_wait",
            "seconds",
        ] {
            assert!(line[key].is_number(), "{key} in {line}");
        }
        let due = line["step"].as_u64().unwrap().is_multiple_of(5);
        assert!(due || line.get("knn_top1").is_none(), "{line}");
    }
    let number = |step: usize, key: &str| lines[step - 1][key].as_f64().unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} and {b}");
    // 112 pictures in batches of 16; 4 tau ln N; base_lr N / 256 after warm-up.
    close(number(7, "epoch"), 1.0);
    close(number(1, "chance_loss"), 4.0 * 0.2 * (BATCH as f64).ln());
    close(number(1, "lr"), 0.0);
    close(number(4, "lr"), 1e-2 * BATCH as f64 / 256.0);
    close(number(1, "momentum"), 0.9);
    assert!(number(STEPS, "seconds") > number(1, "seconds"));

    // The three newest of those every four steps, and the end.
    assert_eq!(site.checkpoints(), [24, 28, 30]);
    let measured = site.events("heldout_knn");
    let measured: Vec<_> = measured
        .iter()
        .map(|e| e["step"].as_u64().unwrap())
        .collect();
    assert_eq!(measured, [0, 10, 20, 30]);
    for kind in ["started", "plugin", "compile", "checkpoint", "ended"] {
        assert!(!site.events(kind).is_empty(), "no event {kind}");
    }
    let written = fs::read_to_string(site.run().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(config["optimizer"]["base_lr"], 1e-2);
    assert!(site.run().join("report.html").is_file());
    let boards = fs::read_dir(site.run().join("tensorboard")).unwrap();
    assert_eq!(boards.count(), 1);
}

#[test]
fn a_finished_run_says_so_and_is_left_alone() {
    let site = Site::new();
    site.trained(&[]);
    let before = fs::read(site.run().join("events.jsonl")).unwrap();
    let ended = site.trained(&[]);
    let told = &ended.stdout;
    assert!(told.contains("finished: 30 of 30 steps are done"), "{told}");
    assert!(told.contains("held-out kNN: "), "{told}");
    assert_eq!(fs::read(site.run().join("events.jsonl")).unwrap(), before);
    site.is_as_unbroken();
}

#[test]
fn pictures_without_classes_train_without_monitor() {
    let site = Site::new();
    let pictures = site.path("pictures");
    synth(&pictures, 1, 32);
    // One that cannot be decoded: it is replaced, named and told of.
    let class = fs::read_dir(&pictures)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::write(class.join("text.jpg"), "no picture").unwrap();
    let path = text(&pictures);
    let ended = site.trained(&["--data", path, "--steps", "4"]);
    ended.says(&["kNN monitor is off", "text.jpg"]);
    assert!(!ended.stdout.contains("held-out"), "{}", ended.stdout);
    let corrupt = site.lines("corrupt.jsonl");
    assert_eq!(corrupt.len(), 1);
    assert!(corrupt[0]["name"].as_str().unwrap().ends_with("text.jpg"));
    let replaced = site.events("replaced_picture");
    assert_eq!(replaced.len(), 1);
    assert!(
        replaced[0]["replacement"]
            .as_str()
            .unwrap()
            .ends_with(".png")
    );
}

#[test]
fn a_failed_evaluation_does_not_cost_the_state() {
    let site = Site::new();
    let pictures = site.path("pictures");
    synth(&pictures.join("train"), 2, 32);
    synth(&pictures.join("test"), 2, 8);
    for class in fs::read_dir(pictures.join("test")).unwrap() {
        for picture in fs::read_dir(class.unwrap().path()).unwrap() {
            fs::write(picture.unwrap().path(), "no picture").unwrap();
        }
    }
    let later = ["--set", "eval.at_start=false", "--steps", "3"];
    let ended = site.train(&[&["--data", text(&pictures)], &later[..]].concat());
    ended.refused(&["cannot classify the held-out pictures", "corrupt"]);
    assert_eq!(site.checkpoints(), [3]);
}

#[test]
fn too_many_corrupt_pictures_do_not_cost_the_state() {
    let site = Site::new();
    let pictures = site.path("pictures");
    synth(&pictures, 2, 112);
    for i in 0..4 {
        fs::write(pictures.join(format!("class_00/text{i}.jpg")), "no picture").unwrap();
    }
    let data = [
        "--data",
        text(&pictures),
        "--set",
        "checkpoint.every_steps=100",
    ];
    // Three are borne, whatever the limit.
    site.train(&data)
        .refused(&["4 of the", "are corrupt", "data check"]);
    assert_eq!(site.lines("corrupt.jsonl").len(), 4);
    let step = site.lines("metrics.jsonl").len();
    assert!(step > 0, "the fourth is in the first batch");
    assert_eq!(site.checkpoints(), [step as u64]);
}

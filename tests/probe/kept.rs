//! Classifiers that are kept between epochs, and several sets in one call.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{SAME, probe, tiny};
use crate::support::evaluation::{json, refused, run_folder};
use xla_moco::checkpoint::RunDir;

/// Kills a probe after its second epoch or later, and lets another go on.
fn killed_and_resumed(more: &[&str], epochs: u64) {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let [broken, whole] = ["broken", "whole"].map(|name| folder.path().join(name));
    let of = |out: &Path, epochs: u64| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xla-moco"));
        command.arg("probe").arg("--checkpoint").arg(run.root());
        command
            .args(["--batch", "30", "--lr", "0.1,1", "--json"])
            .args(more);
        command
            .args(["--epochs", &epochs.to_string()])
            .arg("--out")
            .arg(out);
        command
    };
    let mut child = of(&broken, epochs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Newer states replace older ones.
    let kept = RunDir::create(&broken).unwrap();
    let begun = || (2..epochs).any(|epoch| kept.checkpoint_dir(epoch).exists());
    let patience = Instant::now() + Duration::from_secs(120);
    while !begun() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert!(!ended.success(), "it ended before it could be killed");
    let rest = of(&broken, epochs).output().unwrap();
    let told = String::from_utf8_lossy(&rest.stderr).into_owned();
    assert!(told.contains("goes on after epoch "), "{told}");
    assert_eq!(json(&rest), json(&of(&whole, epochs).output().unwrap()));

    // What is finished is only tested again; another probe's folder is not used.
    let again = of(&whole, epochs).output().unwrap();
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !told.contains(&format!("epoch {epochs} of {epochs}")),
        "{told}"
    );
    assert_eq!(json(&again), json(&rest));
    let longer = of(&whole, epochs + 1).output().unwrap();
    refused(&longer, "has the state of another probe");
}

#[test]
fn a_probe_that_was_killed_goes_on_to_the_same_numbers() {
    killed_and_resumed(&[], 60);
}

#[test]
fn a_probe_of_cached_features_behind_a_norm_goes_on_to_the_same_numbers() {
    killed_and_resumed(&["--fast", "--bn"], 300);
}

/// Other labels of the same pictures make another probe.
#[test]
fn corrected_labels_are_not_taken_for_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    for i in 0..8u8 {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([i * 30, 90, 200 - i * 20]));
        picture
            .save(folder.path().join(format!("{i}.png")))
            .unwrap();
    }
    let list = folder.path().join("list.csv");
    let with = |classes: [&str; 8]| {
        let lines = classes
            .iter()
            .enumerate()
            .map(|(i, class)| format!("{i}.png,{class}\n"));
        std::fs::write(&list, lines.collect::<String>()).unwrap();
        let list = list.to_str().unwrap();
        let fast = [
            "--fast", "--epochs", "5", "--batch", "4", "--lr", "1", "--json",
        ];
        let sets = ["--data", list, "--test", list];
        let output = probe(run.root(), &[&sets[..], &fast].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        json(&output);
        told.contains("goes on after epoch")
    };
    let first = ["a", "b", "a", "b", "a", "b", "a", "b"];
    assert_eq!((with(first), with(first)), (false, true));
    assert!(!with(["b", "a", "a", "b", "a", "b", "a", "b"]));
}

#[test]
fn several_sets_in_one_call_are_each_what_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let other = "synthetic:K=3,N=90,px=16";
    let fast = [
        "--fast", "--epochs", "4", "--batch", "30", "--lr", "1", "--json",
    ];
    let sets = [
        "--data", SAME[1], "--test", SAME[3], "--data", other, "--test", other,
    ];
    let both = json(&probe(run.root(), &[&sets[..], &fast].concat()));
    let alone = json(&probe(run.root(), &[&sets[4..], &fast].concat()));
    assert_eq!(both["sets"].as_array().unwrap().len(), 2);
    assert_eq!(both["sets"][0]["test"]["pictures"], 120);
    assert_eq!(both["sets"][1], alone);
    let out = [
        &sets[..],
        &fast,
        &["--out", folder.path().to_str().unwrap()],
    ]
    .concat();
    refused(&probe(run.root(), &out), "give it with one --data");
    let uneven = [&sets[..], &fast, &["--test", other]].concat();
    refused(&probe(run.root(), &uneven), "2 --data and 3 --test");
}

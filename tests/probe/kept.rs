//! Classifiers that are kept between epochs, and several sets in one call.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{SAME, probe, tiny};
use crate::support::evaluation::{json, refused, run_folder};
use xla_moco::checkpoint::RunDir;

#[test]
fn a_probe_that_was_killed_goes_on_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let [broken, whole] = ["broken", "whole"].map(|name| folder.path().join(name));
    let of = |out: &Path, epochs: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xla-moco"));
        command.arg("probe").arg("--checkpoint").arg(run.root());
        command.args([
            "--epochs", epochs, "--batch", "30", "--lr", "0.1,1", "--json",
        ]);
        command.arg("--out").arg(out);
        command
    };
    let epochs = "60";
    let mut child = of(&broken, epochs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let second = RunDir::create(&broken).unwrap().checkpoint_dir(2);
    let patience = Instant::now() + Duration::from_secs(120);
    while !second.exists() && Instant::now() < patience {
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
    assert!(!told.contains("epoch 60 of 60"), "{told}");
    assert_eq!(json(&again), json(&rest));
    refused(
        &of(&whole, "61").output().unwrap(),
        "has the state of another probe",
    );
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

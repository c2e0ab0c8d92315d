//! What cannot be trained, told before anything is made.

use std::fs;

use super::support::{Site, text};

/// Refused in these words, and no run folder is left behind.
fn refused(site: &Site, arguments: &[&str], words: &[&str]) {
    site.train(arguments).refused(words);
    assert!(!site.run().exists());
}

#[test]
fn data_that_is_not_there() {
    let site = Site::new();
    let absent = site.path("absent");
    refused(
        &site,
        &["--data", text(&absent)],
        &["no such folder", text(&absent)],
    );
    let empty = site.path("empty");
    fs::create_dir(&empty).unwrap();
    refused(&site, &["--data", text(&empty)], &[text(&empty)]);
}

#[test]
fn batches_that_do_not_fit() {
    let site = Site::new();
    let larger = ["--set", "batch=128"];
    refused(&site, &larger, &["batch is 128", "the data has 112"]);
    refused(
        &site,
        &["--devices", "3"],
        &["`batch` (16)", "3 devices", "15, 18"],
    );
    refused(&site, &["--steps", "0"], &["--steps is 0"]);
}

#[test]
fn a_machine_without_the_device() {
    if xla_moco::pjrt::tpu_is_present() {
        eprintln!("skipped: there is a TPU");
        return;
    }
    let site = Site::new();
    let ended = site.train(&["--pjrt", "tpu"]);
    ended.refused(&["no TPU", "--pjrt cpu"]);
}

#[test]
fn another_configuration_is_refused_with_its_keys() {
    let site = Site::new();
    site.trained(&["--steps", "4"]);
    let config = fs::read(site.run().join("config.json")).unwrap();
    let ended = site.train(&["--set", "optimizer.base_lr=2e-2", "--seed", "6"]);
    ended.refused(&[
        "`seed` was 5, is 6",
        "`optimizer.base_lr` was 0.01, is 0.02",
        "--out",
    ]);
    let ended = site.train(&["--set", "schedule.total_steps=31"]);
    ended.refused(&["`schedule.total_steps` was 30, is 31"]);
    assert_eq!(fs::read(site.run().join("config.json")).unwrap(), config);
    // What does not change the run passes, and is written down.
    site.trained(&["--set", "checkpoint.keep_last=9"]);
    let config = fs::read_to_string(site.run().join("config.json")).unwrap();
    assert!(config.contains("\"keep_last\": 9"), "{config}");
    site.is_as_unbroken();
}

#[test]
fn other_pictures_are_refused() {
    let site = Site::new();
    let pictures = |n: usize| format!("synthetic:K=4,N={n},px=16");
    site.trained(&["--data", &pictures(112), "--steps", "2"]);
    let ended = site.train(&["--data", &pictures(113)]);
    ended.refused(&["not those that the run began with"]);
}

//! What is left out of the page, and what is refused.

use std::fs;

use image::RgbImage;
use serde_json::{Value as Json, json};
use xla_moco::config::Override;

use super::support::evaluation::{json, refused, run_folder};
use super::{page, run};

/// Without labels, in a folder whose name is markup, fewer than the run's batch,
/// seen by a ViT without class token.
#[test]
fn what_cannot_be_shown_is_left_out_with_a_reason() {
    let temp = tempfile::tempdir().unwrap();
    let mean = Override::new("model.output", "norm_pool");
    let run_dir = run_folder(&temp.path().join("run"), &[mean]);
    let bare = temp.path().join("a&b <i>");
    fs::create_dir(&bare).unwrap();
    for i in 0..6u8 {
        let picture = RgbImage::from_fn(40, 32, |x, y| image::Rgb([x as u8 * i, y as u8, 9 * i]));
        picture.save(bare.join(format!("{i}.png"))).unwrap();
    }
    let place = bare.to_str().unwrap();
    let sets = ["--data", place, "--test", place];
    let arguments = [&sets[..], &["--pictures", "6", "--neighbours", "2"]].concat();
    let with_json = [&arguments[..], &["--json"]].concat();
    let report = json(&run("show", run_dir.root(), &with_json));
    let (page, data) = page(&run_dir.root().join("show.html"));
    for (section, words) in [
        ("attention", "this ViT has no class token"),
        ("pairs", "the batch is 128 pictures, but the data has 6"),
    ] {
        let why = report[section]["left_out"].as_str().unwrap();
        assert!(why.contains(words), "{why}");
        assert!(page.contains(&format!("<p>Left out: {words}")), "{section}");
    }
    // Each is its own nearest; there are no classes.
    for query in report["neighbours"].as_array().unwrap() {
        let nearest = &query["nearest"][0];
        assert_eq!(
            (&nearest["id"], &query["class"]),
            (&query["id"], &Json::Null)
        );
        assert_eq!(nearest["right"], Json::Null);
    }
    assert_eq!(data["map"]["labels"], json!(vec![Json::Null; 6]));
    assert!(!page.contains("<i>") && page.contains("a&amp;b &lt;i&gt;"));
    let told = run("show", run_dir.root(), &arguments);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("without attention: this ViT"), "{told}");
}

/// Random running variances are below 0, whose roots are NaN.
#[test]
fn features_that_are_no_numbers_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let model = json!({"arch": "resnet", "block": "basic", "stages": [1, 1], "width": 8, "stem": "3x3", "image_size": 32});
    let run_dir = run_folder(&temp.path().join("run"), &[Override::new("model", model)]);
    refused(&run("show", run_dir.root(), &[]), "NaN or infinite");
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    let root = run_dir.root();
    for (arguments, words) in [
        (&["--pictures", "0"][..], "0 is not in 1..=64"),
        (&["--pictures", "65"], "65 is not in 1..=64"),
        (
            &["--pictures", "41"],
            "--pictures 41 asks for more pictures than test split of",
        ),
        (&["--neighbours", "0"], "0 is not in 1..=50"),
        (
            &[
                "--data",
                "synthetic:K=2,N=9,px=32",
                "--test",
                "synthetic:K=2,N=9,px=32",
            ],
            "--neighbours 10 asks for more",
        ),
        (&["--bank", "201"], "--bank 201 asks for more"),
        (&["--bank", "9"], "more than the --bank of 9"),
        (&["--step", "0"], "0 is not in"),
        (&["--points", "1"], "1 is not in"),
        (&["--data", "/no/such/folder"], "no such folder"),
    ] {
        refused(&run("show", root, arguments), words);
    }
    refused(
        &run("show", &temp.path().join("none"), &[]),
        "there is no run folder",
    );
    assert!(!root.join("show.html").exists());
}

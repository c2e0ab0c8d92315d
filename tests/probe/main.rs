//! The linear probe: steps against softmax regression in plain arithmetic,
//! features of layers against shallower models, and the command on a checkpoint
//! of untrained variables.

mod features;
mod kept;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::evaluation::{json, refused, run_folder};
use support::f32_bytes;
use xla_moco::checkpoint::{self, Origin, RunDir};
use xla_moco::config::Override;

fn probe(checkpoint: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .arg("probe")
        .arg("--checkpoint")
        .arg(checkpoint)
        .args(more)
        .output()
        .unwrap()
}

/// One narrow block at 16 px.
fn tiny() -> [Override; 5] {
    [
        Override::new("model.blocks", 1),
        Override::new("model.dim", 32),
        Override::new("model.heads", 2),
        Override::new("model.image_size", 16),
        Override::new("model.patch", 4),
    ]
}

/// 4 classes: chance is 25%.
const SAME: [&str; 4] = [
    "--data",
    "synthetic:K=4,N=120,px=16",
    "--test",
    "synthetic:K=4,N=120,px=16",
];

#[test]
fn the_fast_mode_is_labelled_and_fits_what_it_was_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let fast = ["--fast", "--bn", "--epochs", "60", "--batch", "40"];
    let one = [&SAME[..], &fast, &["--lr", "1", "--json"]].concat();
    let output = probe(run.root(), &one);
    let report = json(&output);
    // Trained and tested on the same pictures, without augmentation.
    assert!(report["top1"].as_f64().unwrap() > 50.0, "{report}");
    assert_eq!(report["fast"], true);
    assert!(report["mode"].as_str().unwrap().starts_with("fast: cached"));
    assert_eq!(report["train"]["pictures"], 120);
    assert_eq!(report["held_out_pictures"], 0);
    assert!(report["lr"]["held_out_top1"].is_null());
    assert_eq!(report["lr"]["peak"], 40.0 / 256.0);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("epoch 60 of 60"), "{told}");

    let several = [&SAME[..], &fast, &["--lr", "0.001,1", "--held-out", "0.25"]].concat();
    let output = probe(run.root(), &several);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    for words in [
        "linear probe (fast, not the published protocol) top-1",
        "of 120 test pictures (chance 25.00%",
        "best of the last epoch on 30 held-out training pictures",
        "train       90 of synthetic:",
        "momentum 0.9, weight decay 0",
        "batch norm  true",
        "chosen",
    ] {
        assert!(told.contains(words), "expected {words:?} in: {told}");
    }
}

#[test]
fn the_full_mode_sweeps_rates_and_tells_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let more = [
        "--epochs", "3", "--batch", "30", "--lr", "0.1,1,10", "--json",
    ];
    let of_run = || json(&probe(run.root(), &more));
    let report = of_run();
    assert_eq!(report["mode"], "full: augmented in training");
    assert_eq!(report["fast"], false);
    assert_eq!(report["train"]["pictures"], 180);
    assert_eq!(report["held_out_pictures"], 20);
    assert_eq!(report["test"]["pictures"], 40);
    assert_eq!(report["epochs"], 3);
    assert_eq!(report["checkpoint"]["step"], 12);
    assert_eq!(report["checkpoint"]["sha256"].as_str().unwrap().len(), 64);
    let sweep = report["sweep"].as_array().unwrap();
    let base: Vec<f64> = sweep
        .iter()
        .map(|rate| rate["base"].as_f64().unwrap())
        .collect();
    assert_eq!(base, [0.1, 1.0, 10.0]);
    // What is chosen is best on the held-out pictures.
    let score = |rate: &serde_json::Value| rate["held_out_top1"].as_f64().unwrap();
    let best = sweep.iter().map(score).fold(0.0, f64::max);
    assert_eq!(score(&report["lr"]), best);
    assert!(sweep.contains(&report["lr"]));
    let classes = report["per_class"].as_array().unwrap();
    let right: u64 = classes
        .iter()
        .map(|class| class["right"].as_u64().unwrap())
        .sum();
    let top1 = report["top1"].as_f64().unwrap();
    assert!((top1 - 100.0 * right as f64 / 40.0).abs() < 1e-9);
    // The same again, to the last digit, whatever the threads did.
    assert_eq!(of_run(), report);
}
/// As a checkpoint whose final norm has gain 1 and bias 0.
#[test]
fn the_final_norm_can_be_reset() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let plain = run_folder(&folder.path().join("plain"), &tiny());
    let loaded = checkpoint::open(run.root()).unwrap();
    let mut tensors = loaded.snapshot.into_tensors();
    for (name, value) in [("weight", 1.0f32), ("bias", 0.0)] {
        let name = format!("base_encoder.norm.{name}");
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name);
        let data = &mut tensor.unwrap().data;
        *data = f32_bytes(&vec![value; data.len() / 4]);
    }
    let reset = checkpoint::Snapshot::new(13, tensors).unwrap();
    checkpoint::save(&plain, &reset, &Origin::default()).unwrap();
    let with = |run: &RunDir, more: &[&str]| {
        let fast = [
            "--fast", "--epochs", "5", "--batch", "40", "--lr", "1", "--json",
        ];
        let report = json(&probe(run.root(), &[&SAME[..], &fast, more].concat()));
        (
            report["lr"].clone(),
            report["top1"].clone(),
            report["final_norm_reset"].clone(),
        )
    };
    let (rate, top1, said) = with(&run, &["--reset-norm"]);
    assert_eq!(said, true);
    let wanted = with(&plain, &[]);
    assert_eq!((rate.clone(), top1, false.into()), wanted);
    assert_ne!(rate, with(&run, &[]).0);
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let root = run.root();
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for i in 0..3u8 {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([i * 50, 9, 9]));
        picture.save(bare.join(format!("{i}.png"))).unwrap();
    }
    let bare = bare.to_str().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["--data", bare, "--test", bare], "has no labels"),
        (&["--data", bare], "has no labels"),
        (
            &["--batch", "181"],
            "the batch is 181 pictures, but the data has 180",
        ),
        (&["--batch", "0"], "the batch is 0 pictures"),
        (&["--lr", ""], "--lr"),
        (&["--lr", "0.1,-1"], "-1 is not above 0"),
        (&["--lr", "inf"], "inf is not above 0"),
        (&["--held-out", "1"], "expected a share between 0 and 1"),
        (&["--layers", "2"], "there is no layer 2"),
        (&["--layers", "0"], "there is no layer 0"),
        (&["--crop-min", "0"], "expected a smallest crop above 0"),
        (
            &["--set", "model.dim=64", "--batch", "32"],
            "the run's model needs",
        ),
    ];
    for (more, words) in cases {
        refused(&probe(root, more), words);
    }
}

//! `finetune` on runs of the real binary.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const RUN: [&str; 10] = [
    "--set",
    "model={\"arch\":\"vit\",\"blocks\":2,\"dim\":16,\"heads\":2,\"patch\":8,\"image_size\":16,\"compute_dtype\":\"f32\"}",
    "--set",
    "data.synthetic={\"classes\":4,\"images\":64,\"test_images\":32,\"size\":16}",
    "--set",
    "batch=16",
    "--set",
    "eval={\"every_steps\":4}",
    "--set",
    "checkpoint.every_steps=4",
];

fn xla_moco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn passes(arguments: &[&str]) -> String {
    let output = xla_moco(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], part: &str) {
    let output = xla_moco(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(part), "{told}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A short pre-training.
fn pretrained(folder: &TempDir) -> PathBuf {
    let run = folder.path().join("pre");
    let mut arguments = vec![
        "train",
        "--config",
        "configs/quickstart.json",
        "--steps",
        "4",
    ];
    arguments.extend(RUN);
    arguments.extend(["--out", path(&run)]);
    passes(&arguments);
    run
}

fn finetune<'a>(checkpoint: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "finetune",
        "--checkpoint",
        path(checkpoint),
        "--data",
        "synthetic",
    ];
    arguments.extend(&RUN[2..]);
    arguments.extend(["--set", "schedule={\"total_steps\":8}", "--out", path(out)]);
    arguments.extend(more);
    arguments
}

fn state(run: &Path, step: u64) -> Vec<u8> {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    std::fs::read(folder.join("state.safetensors")).unwrap()
}

#[test]
fn a_run_is_fine_tuned_with_the_whole_recipe_and_resumes_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let pre = pretrained(&folder);
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let report = passes(&finetune(&pre, &whole, &["--json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    let top1 = report["top1"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&top1));
    let steps: Vec<u64> = report["curve"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [0, 4, 8]);

    // The recipe is DeiT's, the model that of the weights, all of it trained.
    let config = std::fs::read_to_string(whole.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    for (pointer, wanted) in [
        ("/method/supervised/classes", Value::from(4)),
        ("/method/supervised/mixup", 0.8.into()),
        ("/method/supervised/drop_path", 0.1.into()),
        ("/augment/erase_p", 0.25.into()),
        ("/augment/rand_augment/magnitude", 9.0.into()),
        ("/model/dim", 16.into()),
        ("/model/patch_projection", "learned".into()),
        ("/model/position", "learned".into()),
    ] {
        assert_eq!(config.pointer(pointer), Some(&wanted), "{pointer}");
    }

    passes(&finetune(&pre, &broken, &["--steps", "4"]));
    assert_eq!(state(&broken, 4), state(&whole, 4));
    // Not with other weights: the checkpoint of another step.
    let other = pre.join("checkpoints/step-00000002");
    passes(&[
        "train",
        "--config",
        path(&pre.join("config.json")),
        "--steps",
        "2",
        "--out",
        path(&folder.path().join("other")),
    ]);
    std::fs::rename(
        folder.path().join("other/checkpoints/step-00000002"),
        &other,
    )
    .unwrap();
    refused(&finetune(&other, &broken, &[]), "(SHA-256");
    passes(&finetune(&pre, &broken, &[]));
    assert_eq!(state(&broken, 8), state(&whole, 8));
}

/// Learned positions are interpolated; patches of another size are not.
#[test]
fn pictures_may_have_another_size() {
    let folder = TempDir::new().unwrap();
    let pre = pretrained(&folder);
    let out = folder.path().join("out");
    let sized = |size: &'static str| ["--set", size, "--steps", "2", "--json"];
    passes(&finetune(&pre, &out, &sized("model.image_size=32")));
    let out = folder.path().join("other");
    refused(
        &finetune(&pre, &out, &["--set", "model.patch=4", "--steps", "2"]),
        "they are of another model",
    );
}

#[test]
fn what_cannot_be_fine_tuned_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let with = |more: &[&'static str]| {
        let mut arguments = vec!["finetune", "--out", path(&out)];
        arguments.extend(more);
        arguments.extend(RUN);
        arguments
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let refused = |more: &[&'static str], part: &str| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments, part);
    };
    let recipe = "configs/cifar10/finetune_vit_micro.json";
    // Ten classes in the recipe, four in the pictures.
    refused(
        &["--config", recipe, "--data", "synthetic"],
        "set it to 4 (--set method.supervised.classes=4)",
    );
    refused(
        &["--config", "configs/quickstart.json"],
        "needs \"supervised\"",
    );
    refused(&["--checkpoint", "no/such/run"], "no/such/run");
    refused(
        &[
            "--config",
            recipe,
            "--data",
            "synthetic",
            "--set",
            "accumulate=4",
        ],
        "does not take a batch in chunks",
    );
    for alpha in ["-1", "1e-9"] {
        let set = format!("method.supervised.mixup={alpha}");
        let set: &'static str = Box::leak(set.into_boxed_str());
        refused(&["--config", recipe, "--set", set], "expected 0.01 to 8");
    }
}

/// A picture without a label would teach that it is of no class.
#[test]
fn every_picture_needs_a_label() {
    let folder = TempDir::new().unwrap();
    let mut list = "path,label\n".to_owned();
    for (i, label) in ["cat", "dog", "", "dog"].into_iter().enumerate() {
        let name = format!("{i}.png");
        let picture = image::RgbImage::new(16, 16);
        picture.save(folder.path().join(&name)).unwrap();
        list += &format!("{name},{label}\n");
    }
    let data = folder.path().join("train.csv");
    std::fs::write(&data, list).unwrap();
    let mut arguments = vec![
        "finetune",
        "--config",
        "configs/cifar10/finetune_vit_micro.json",
    ];
    arguments.extend(&RUN[..2]);
    let out = folder.path().join("out");
    arguments.extend(["--data", path(&data), "--out", path(&out)]);
    arguments.extend(["--set", "method.supervised.classes=2", "--set", "batch=2"]);
    refused(&arguments, "1 of the 4 training pictures have no label");
}

//! `export` and `inspect`, run as a user runs them.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value as Json;
use support::f32_values;
use xla_moco::graph::DType;
use xla_moco::pjrt::{Arg, Client, ClientOptions, CompileOptions, Program};

/// The quick start, made small: compiles in a moment.
const SMALL: &[&str] = &[
    "batch=16",
    "model.blocks=2",
    "model.dim=32",
    "method.projector.hidden=32",
    "method.predictor.hidden=32",
    "data.synthetic.images=64",
    "data.synthetic.test_images=0",
    "schedule.warmup_steps=4",
];

fn xla_moco(command: &str, more: &[&str]) -> Output {
    let mut call = Command::new(env!("CARGO_BIN_EXE_xla-moco"));
    call.args([command, "--config", "configs/quickstart.json"]);
    for set in SMALL {
        call.args(["--set", set]);
    }
    call.args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn succeeds(output: Output) -> (String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    (stdout, stderr)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs an exported program on exported arguments, by name and in the
/// signature's order; gives the result `metrics`.
fn run(client: &Arc<Client>, text: &str, signature: &Json, arguments: &[u8]) -> Vec<f32> {
    let arguments = safetensors::SafeTensors::deserialize(arguments).unwrap();
    let options = CompileOptions::default();
    let executable = client.compile(&Program { text }, &options).unwrap();
    let device = &client.devices()[0];
    let upload = |entry: &Json| {
        let array = arguments.tensor(entry["name"].as_str().unwrap()).unwrap();
        let dtype = DType::ALL.into_iter().find(|d| d.mlir() == entry["dtype"]);
        assert_eq!(serde_json::json!(array.shape()), entry["shape"]);
        let buffer = client.buffer_from_host(array.data(), dtype.unwrap(), array.shape(), device);
        Arg::Donate(buffer.unwrap())
    };
    let inputs = signature["inputs"].as_array().unwrap();
    let outputs = executable
        .execute(vec![inputs.iter().map(upload).collect()])
        .unwrap();
    let names = signature["outputs"].as_array().unwrap();
    let at = names.iter().position(|o| o["name"] == "metrics").unwrap();
    f32_values(&outputs.buffers[0][at].to_host().unwrap())
}

/// The text is that of `train`: the loss of the exported program on the
/// exported arguments is what the run's first line says.
#[test]
fn an_exported_step_gives_the_loss_of_the_runs_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (program, arguments, out) = (at("step.mlir"), at("step.safetensors"), at("run"));
    let export = ["--format", "stablehlo", "--out", path(&program)];
    let export = [&export[..], &["--arguments", path(&arguments)]].concat();
    succeeds(xla_moco("export", &export));
    succeeds(xla_moco("train", &["--out", path(&out), "--steps", "1"]));

    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let first: Json = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let expected = first["loss"].as_f64().unwrap();
    let text = fs::read_to_string(&program).unwrap();
    let signature = fs::read(at("step.signature.json")).unwrap();
    let signature: Json = serde_json::from_slice(&signature).unwrap();
    let arguments = fs::read(&arguments).unwrap();
    // The plugin that `train` takes by default.
    let (_, plugin) = support::cpu_plugins().remove(0);
    let client = Client::new(&plugin, &ClientOptions::default()).unwrap();
    let metrics = run(&client, &text, &signature, &arguments);
    let names = signature["metrics"].as_array().unwrap();
    let at = names.iter().position(|name| name == "loss").unwrap();
    // Another number of threads may sum in another order.
    let loss = f64::from(metrics[at]);
    assert!(
        (loss / expected - 1.0).abs() < 1e-5,
        "{loss}, not {expected}"
    );
}

#[test]
fn every_format_can_be_written() {
    for (format, begins, has) in [
        (
            "stablehlo",
            "module @train_step",
            "base_encoder/blocks.1/attn",
        ),
        ("hlo", "HloModule train_step", "op_name="),
        ("hlo-optimized", "HloModule train_step", "is_scheduled=true"),
        ("dot", "digraph {", "label=\"blocks.1"),
    ] {
        let (text, _) = succeeds(xla_moco("export", &["--format", format]));
        assert!(text.starts_with(begins), "{format}: {}", &text[..200]);
        assert!(text.contains(has), "{format} has no {has}");
        if format == "stablehlo" {
            let (again, _) = succeeds(xla_moco("export", &["--format", format]));
            assert!(text == again, "equal configurations give equal text");
        }
    }
}

#[test]
fn the_features_program_takes_the_backbone_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("features.mlir");
    let export = ["--program", "features", "--format", "stablehlo", "--out"];
    succeeds(xla_moco(
        "export",
        &[&export[..], &[path(&program)]].concat(),
    ));
    let signature = fs::read(program.with_extension("signature.json")).unwrap();
    let signature: Json = serde_json::from_slice(&signature).unwrap();
    let inputs = signature["inputs"].as_array().unwrap();
    let pictures = inputs.last().unwrap();
    assert_eq!(pictures["name"], "pictures");
    assert_eq!(pictures["shape"], serde_json::json!([16, 32, 32, 3]));
    let is_head = |input: &Json| input["name"].as_str().unwrap().contains(".head.");
    assert!(!inputs.iter().any(is_head));

    let refused = xla_moco(
        "export",
        &[
            "--program",
            "features",
            "--format",
            "stablehlo",
            "--arguments",
            "x",
        ],
    );
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn pictures_that_are_not_here_leave_the_monitor_out_and_are_named() {
    let (_, stderr) = succeeds(xla_moco(
        "export",
        &["--format", "stablehlo", "--data", "/no/such/pictures"],
    ));
    for word in ["/no/such/pictures", "without the kNN monitor"] {
        assert!(stderr.contains(word), "{stderr}");
    }
}

/// Parameters by hand: 192 inputs a patch, 17 tokens, 4 layers of 32 x 32 and
/// an MLP of 32 x 128 in each of 2 blocks, heads of 32 and 128.
#[test]
fn inspect_counts_and_shows_the_mesh() {
    let more = ["--devices", "4", "--shardings"];
    let (text, _) = succeeds(xla_moco("inspect", &more));
    let block = 4 * 32 * 32 + 4 * 32 + 2 * 32 * 128 + 128 + 32 + 4 * 32;
    let backbone = 192 * 32 + 32 + 32 + 17 * 32 + 2 * block + 2 * 32;
    let projector = 32 * 32 + 2 * 32 + 32 * 32 + 2 * 32 + 32 * 128;
    let predictor = 128 * 32 + 2 * 32 + 32 * 128;
    for (part, parameters) in [
        ("backbone ", backbone),
        ("projector ", projector),
        ("predictor ", predictor),
        (
            "both encoders, predictor ",
            2 * (backbone + projector) + predictor,
        ),
    ] {
        let line = text.lines().find(|line| line.starts_with(part)).unwrap();
        let number = line[part.len()..].split_whitespace().next().unwrap();
        assert_eq!(number.replace(',', ""), parameters.to_string(), "{line}");
    }
    assert!(
        text.contains("400 steps, warm-up 4; 4 steps an epoch: 100.0 epochs"),
        "{text}"
    );
    assert!(text.contains("peak lr 1.25e-4"), "{text}");
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    let held =
        |start: &str| -> Vec<&str> { line(start).split_whitespace().rev().take(4).collect() };
    assert_eq!(held("view1"), ["12..16", "8..12", "4..8", "0..4"]);
    assert_eq!(held("base_encoder.*"), ["all"; 4]);
    // Keys of both views, from all devices: 16 pictures, 128 numbers, f32.
    let gathered = |line: &&str| line.contains("all-gather") && line.contains("loss/");
    let keys = text.lines().find(gathered).unwrap();
    assert!(keys.contains("16.4 kB"), "{keys}");
}

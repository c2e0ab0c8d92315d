//! `xla-moco convert` and `train --continue-from`, on a small model in the
//! authors' layout that tools/reference/convert_check.py wrote with PyTorch.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use xla_moco::checkpoint;
use xla_moco::convert::{Hints, Source, TOLERANCE, read};

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/convert").join(name)
}

fn xla_moco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(arguments)
        .output()
        .unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = xla_moco(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], words: &str) {
    let output = xla_moco(arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
    assert!(told.contains(words), "expected {words:?} in: {told}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file's tensors, as f32.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut source = Source::open(path).unwrap();
    let names: Vec<String> = source.entries.iter().map(|e| e.name.clone()).collect();
    let one = |(i, name)| (name, source.read_f32(i).unwrap());
    names.into_iter().enumerate().map(one).collect()
}

/// The tensors of a run's newest checkpoint by their names.
fn state(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let tensors = checkpoint::open(run).unwrap().snapshot.into_tensors();
    tensors.into_iter().map(|t| (t.name, t.data)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    support::f32_values(bytes)
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The authors' file goes in, and out to every tool and back: the same bits,
/// and PyTorch's features.
#[test]
fn the_authors_file_goes_round_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let convert = |from: &Path, to: &str, out: &Path| {
        succeeds(&[
            "convert",
            "--in",
            path(from),
            "--to",
            to,
            "--out",
            path(out),
        ])
    };
    let told = convert(&fixture("tiny.pth.tar"), "xla-moco", &at("run"));
    // Class token, positions, 2 of the projection, 12 of a block, 2 of the norm.
    for words in [
        "30 of 30 tensors of the backbone, moco-v3 layout",
        "12 heads, patches of 4, 16 px, layer norm eps 1e-6",
        "heads by:      arch \"vit_small\"",
        "left aside:    8 tensors of counters of batches",
    ] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
    let expected = tensors(&fixture("expected.safetensors"));
    let expected = floats(&expected["output"]);
    let mut parity = Source::open(&at("run/parity.safetensors")).unwrap();
    let output = parity.entries.iter().position(|e| e.name == "output");
    let found = floats(&parity.read_f32(output.unwrap()).unwrap());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let off = norm(&mut found.iter().zip(&expected).map(|(x, y)| x - y));
    let off = f64::from(off / norm(&mut expected.iter().copied()));
    assert!(off <= TOLERANCE, "{off:e} from PyTorch's features");

    let first = state(&at("run"));
    // Two encoders of 30 and a head of 3 linear layers, two BN of 4 tensors and
    // one of 2; the predictor.
    assert_eq!(first.len(), 2 * (30 + 3 + 2 * 4 + 2) + (2 + 4 + 2));
    for to in ["timm", "hf", "onnx", "stablehlo"] {
        let (out, back) = (at(to), at(&format!("{to}-back")));
        convert(&at("run"), to, &out);
        let told = succeeds(&["convert", "--verify", path(&out)]);
        assert!(told.contains("48 features as stored"), "{told}");
        convert(&out, "xla-moco", &back);
        let again = state(&back);
        assert_eq!(again.len(), 30, "{to}");
        for (name, bits) in &again {
            assert_eq!(first.get(name), Some(bits), "{to}: {name}");
        }
    }
    assert_eq!(json(&at("timm/config.json"))["model_args"]["num_heads"], 12);
    assert_eq!(json(&at("hf/config.json"))["num_attention_heads"], 12);
    assert_eq!(json(&at("hf/config.json"))["layer_norm_eps"], 1e-6);
    let mean = &json(&at("timm/config.json"))["pretrained_cfg"]["mean"];
    assert_eq!(*mean, serde_json::json!([0.485, 0.456, 0.406]));
    let query = "encoder.layer.1.attention.attention.query.weight";
    let query = &tensors(&at("hf/model.safetensors"))[query];
    let all = &tensors(&at("timm/model.safetensors"))["blocks.1.attn.qkv.weight"];
    assert_eq!(query[..], all[..all.len() / 3]);

    // Anything that changes the features is found.
    let weights = at("timm/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    fs::write(&weights, bytes).unwrap();
    refused(
        &["convert", "--verify", path(&at("timm"))],
        "does not give the features",
    );
    refused(
        &[
            "convert",
            "--in",
            path(&at("run")),
            "--to",
            "hf",
            "--out",
            path(&at("hf")),
        ],
        "is not empty",
    );
}

/// The trap of 12 and 6 heads: no weight tells them apart.
#[test]
fn a_number_of_heads_that_nobody_knows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = fixture("tiny.pth.tar");
    let convert = ["convert", "--to", "timm", "--out", path(&out), "--in"];
    let with = |more: &[&str]| -> Vec<String> {
        convert
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let refused = |more: &[&str], words: &str| {
        let all = with(more);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        refused(&all, words);
    };
    refused(&[path(&file), "--heads", "6"], "it was made with 12");
    let bare = fixture("tiny-legacy.pth");
    refused(&[path(&bare)], "give --heads");
    refused(&[path(&bare), "--heads", "5"], "does not divide");
    refused(
        &[path(&bare), "--heads", "12", "--image-size", "32"],
        "not interpolated",
    );
    refused(
        &[path(&bare), "--heads", "12", "--from", "hf"],
        "Is --from the right one",
    );
    assert!(!out.exists());
    // Both kinds of file say the same.
    let hints = Hints {
        heads: Some(12),
        ..Hints::default()
    };
    let old = read(&bare, None, &hints).unwrap();
    let new = read(&file, None, &Hints::default()).unwrap();
    assert_eq!(old.backbone, new.backbone);
    assert_eq!(old.found.heads_by, "--heads");
    assert_eq!((old.beside.len(), old.heads()), (0, Some(12)));
}

/// With warm-up the first step's learning rate is 0, so that its parameters are
/// those it began with.
#[test]
fn a_run_continues_from_weights() {
    let folder = tempfile::tempdir().unwrap();
    let file = fixture("tiny.pth.tar");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.json");
    let train = |out: &Path, projector: &str, more: &[&str]| {
        let projector = format!("method.projector={projector}");
        let mut all = vec![
            "train",
            "--config",
            path(&config),
            "--out",
            path(out),
            "--steps",
            "1",
        ];
        all.extend(["--continue-from", path(&file)]);
        let model = r#"model={"arch":"vit","blocks":2,"dim":24,"heads":12,"patch":4,"image_size":16,"compute_dtype":"f32"}"#;
        let predictor = r#"method.predictor={"hidden":32}"#;
        for set in [
            model,
            predictor,
            projector.as_str(),
            "batch=8",
            "data.synthetic.images=64",
            "data.synthetic.test_images=16",
            "eval.at_start=false",
        ] {
            all.extend(["--set", set]);
        }
        all.extend(more);
        xla_moco(&all)
    };
    let given = read(&file, None, &Hints::default()).unwrap();
    let check = |out: &Path, heads: bool| {
        let found = state(out);
        for tensor in &given.backbone {
            let name = format!("base_encoder.{}", tensor.name);
            assert_eq!(found[&name], tensor.data, "{name}");
        }
        let of_heads = ["base_encoder.head.", "predictor."];
        let heads_of = |name: &str| of_heads.iter().any(|prefix| name.starts_with(prefix));
        let weights = given.beside.iter().filter(|t| t.name.ends_with("weight"));
        let same = weights
            .filter(|t| heads_of(&t.name))
            .filter(|t| found[&t.name] == t.data);
        // Linear layers of both heads and gains of hidden norms.
        assert_eq!(same.count(), if heads { 3 + 2 + 2 + 1 } else { 0 });
        let events = fs::read_to_string(out.join("events.jsonl")).unwrap();
        let line = events
            .lines()
            .find(|line| line.contains("\"continue_from\""))
            .unwrap();
        assert!(line.contains("30 of 30 tensors"), "{line}");
        line.to_owned()
    };
    let succeeds = |output: Output| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
    };
    let whole = folder.path().join("whole");
    succeeds(train(&whole, r#"{"hidden":32,"out":16}"#, &[]));
    let line = check(&whole, true);
    assert!(line.contains("momentum encoder from the file"), "{line}");
    // Other heads than the file's are fresh.
    let other = folder.path().join("other");
    succeeds(train(&other, r#"{"hidden":32,"out":8}"#, &[]));
    let line = check(&other, false);
    for words in [
        "projector fresh",
        "predictor fresh",
        "a copy of the base encoder",
    ] {
        assert!(line.contains(words), "{line}");
    }
    for (set, words) in [
        ("model.heads=6", "made with 12"),
        ("model.blocks=3", "blocks.2.norm1.weight"),
        ("model.blocks=1", "the weights have blocks.1"),
    ] {
        let output = train(&folder.path().join("no"), "{}", &["--set", set]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{set}: {told}");
        assert!(told.contains(words), "{set}: {told}");
    }
}

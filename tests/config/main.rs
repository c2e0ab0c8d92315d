//! The shipped configurations, and the real binary's answers about them.

mod shipped;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use xla_moco::config::RunConfig;

const QUICKSTART: &str = "configs/quickstart.json";
const MICRO: &str = "configs/cifar10/moco_v3_vit_micro.json";
const VIT_S: &str = "configs/paper/moco_v3_vit_s16_300ep.json";
const VIT_B: &str = "configs/paper/moco_v3_vit_b16_300ep.json";

/// Every configuration there is: files that are not a base for others alone.
fn shipped() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("configs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = folder.join(&name);
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if name.ends_with(".json") && !name.starts_with('_') {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load(file: &str) -> RunConfig {
    RunConfig::load(&root().join(file), &[]).unwrap_or_else(|error| panic!("{error:#}"))
}

fn xla_moco(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("the binary starts")
}

/// Runs the binary; checks its exit code, that its stdout and stderr have the
/// parts, and that an error is told once.
fn check(arguments: &[&str], code: i32, stdout: &[&str], stderr: &[&str]) {
    let output = xla_moco(arguments);
    let told = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (told(&output.stdout), told(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
    for (text, parts) in [(&out, stdout), (&err, stderr)] {
        for part in parts {
            assert!(
                text.contains(part),
                "{arguments:?}: {part:?} is not in: {text}"
            );
        }
    }
    assert!(err.matches("error:").count() <= 1, "{arguments:?}: {err}");
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
}

#[test]
fn the_schema_describes_every_file_also_one_with_a_base() {
    /// Every key of `value` is a property of `schema`, of a type it allows,
    /// and no key is asked for.
    fn fits(value: &Value, schema: &Value, path: &str) {
        assert_eq!(schema.get("required"), None, "{path}");
        // "This or null."
        let mut options = schema["anyOf"].as_array().into_iter().flatten();
        if value.is_null() && options.clone().any(|option| option["type"] == "null") {
            return;
        }
        let schema = options
            .find(|option| option["type"] != "null")
            .unwrap_or(schema);
        if let Some(words) = schema["oneOf"].as_array() {
            // A word; some are listed singly, some together.
            let mut known = words.iter();
            assert!(
                known.any(|word| word["const"] == *value
                    || word["enum"]
                        .as_array()
                        .is_some_and(|all| all.contains(value))),
                "{path}: {value}"
            );
            return;
        }
        let allowed = schema["type"].to_string();
        let kind = match value {
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) if allowed.contains("number") => "number",
            Value::Number(_) => "integer",
            Value::Null => "null",
        };
        assert!(allowed.contains(kind), "{path} is no {allowed}");
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (key, value) in value.as_object().expect("checked above") {
            let path = format!("{path}.{key}");
            let property = properties.get(key).unwrap_or_else(|| panic!("{path}"));
            fits(value, property, &path);
        }
    }
    let output = xla_moco(&["configs", "schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    for file in shipped() {
        let text = std::fs::read(root().join(&file)).unwrap();
        fits(&serde_json::from_slice(&text).unwrap(), &schema, &file);
    }
}

#[test]
fn what_is_shown_resolves_to_itself() {
    let shown = xla_moco(&["configs", "show", "--config", VIT_B, "--devices", "8"]);
    let value: Value = serde_json::from_slice(&shown.stdout).expect("JSON and nothing else");
    assert_eq!(value["mesh"]["data"], 8);
    let again = RunConfig::from_value(value.clone()).unwrap();
    assert_eq!(again.to_value(), value);
}

#[test]
fn the_binary_answers_in_words_and_exit_codes() {
    let quickstart = QUICKSTART;
    let show = ["configs", "show", "--config", quickstart];
    let with = |more: &[&'static str]| [&show[..], more].concat();
    check(
        &["--help"],
        0,
        &["train", "export", "inspect", "knn", "configs"],
        &[],
    );
    check(
        &["train", "--help"],
        0,
        &["Example", "--steps", "--pjrt"],
        &[],
    );
    check(
        &["configs", "list"],
        0,
        &[quickstart, "Quick start", "76.5%"],
        &[],
    );
    check(
        &[
            "configs",
            "check",
            "configs/cifar10/byol_vit_micro_without_predictor.json",
        ],
        0,
        &["ok     configs/cifar10/byol"],
        &["predictor.json: byol without its predictor collapses"],
    );
    check(
        &["configs", "diff", VIT_S, VIT_B],
        0,
        &["model.dim: 384 -> 768 (changes the run)", "about.title"],
        &[],
    );
    check(
        &["configs", "diff", quickstart, quickstart],
        0,
        &["no difference"],
        &[],
    );
    check(
        &with(&[
            "--data",
            "/pictures",
            "--seed",
            "7",
            "--set",
            "checkpoint.keep_last=9",
        ]),
        0,
        &["\"path\": \"/pictures\"", "\"seed\": 7", "\"keep_last\": 9"],
        &[],
    );
    check(&[], 2, &[], &["Usage"]);
    check(&["trian"], 2, &[], &["trian", "train"]);
    check(&with(&["--set", "batch"]), 2, &[], &["KEY=JSON"]);
    check(
        &["configs", "show", "--config", "no.json"],
        2,
        &[],
        &["cannot open no.json"],
    );
    check(
        &with(&["--set", "optimizer.base_lrr=1"]),
        2,
        &[],
        &[
            "error: configuration configs/quickstart.json with optimizer.base_lrr=1\n",
            "  caused by: unknown key `optimizer.base_lrr`; did you mean `optimizer.base_lr`?",
        ],
    );
    check(
        &with(&["--devices", "3"]),
        2,
        &[],
        &[
            "`batch` (128) is not divisible by `mesh.data` (3 devices)",
            "126, 129",
        ],
    );
    check(
        &with(&["--set", "model.patch=7"]),
        2,
        &[],
        &[
            "`model.patch` (7) does not divide `model.image_size` (32)",
            "28, 35",
        ],
    );
    check(
        &[
            "configs",
            "check",
            "configs/paper/_moco_v3_vit_300ep.json",
            quickstart,
        ],
        2,
        &[
            "wrong",
            "`model.arch` is missing",
            "ok     configs/quickstart.json",
        ],
        &["1 of 2 configurations are wrong"],
    );
    check(
        &["configs", "list", "src"],
        2,
        &[],
        &["no .json file", "src"],
    );
}

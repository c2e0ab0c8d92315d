//! The shipped configurations, and the real binary's answers about them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use xla_moco::config::{Length, RunConfig, Warmup};

const SHIPPED: [&str; 4] = [
    "configs/quickstart.json",
    "configs/cifar10/moco_v3_vit_micro.json",
    "configs/paper/moco_v3_vit_s16_300ep.json",
    "configs/paper/moco_v3_vit_b16_300ep.json",
];

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
fn every_shipped_configuration_says_where_it_comes_from() {
    for file in SHIPPED {
        let config = load(file);
        for key in ["title", "source", "command"] {
            let told = config.about.get(key).and_then(Value::as_str);
            assert!(
                told.is_some_and(|text| !text.is_empty()),
                "{file}: about.{key}"
            );
        }
        let command = config.about["command"].as_str().unwrap();
        assert!(command.contains(file), "{file}: {command}");
    }
}

#[test]
fn no_configuration_is_shipped_untested() {
    let mut listed: Vec<PathBuf> = String::from_utf8(xla_moco(&["configs", "check"]).stdout)
        .unwrap()
        .lines()
        .map(|line| PathBuf::from(line.strip_prefix("ok     ").expect("only good ones")))
        .collect();
    let mut shipped: Vec<PathBuf> = SHIPPED.iter().map(PathBuf::from).collect();
    listed.sort();
    shipped.sort();
    assert_eq!(listed, shipped);
}

/// DESIGN 8: works with 256 pictures, and is warm well before step 100.
#[test]
fn the_quickstart_keeps_its_promises() {
    let config = load(SHIPPED[0]);
    assert!(config.data.is_synthetic());
    assert!(config.batch <= 256 && config.batch.is_multiple_of(4));
    let schedule = config
        .schedule
        .resolve((256 / config.batch) as u64)
        .unwrap();
    assert!(schedule.warmup_steps <= 60);
    assert!(schedule.total_steps > 120);
    assert!(config.monitor.queue_size(256, config.batch) > 0);
}

/// YARDSTICKS, "Learning".
#[test]
fn the_micro_recipe_is_that_of_the_yardstick() {
    let config = load(SHIPPED[1]);
    let (model, method) = (&config.model, &config.method);
    assert_eq!((model.blocks, model.dim, model.heads), (4, 128, 4));
    assert_eq!((model.image_size, model.patch), (32, 8));
    assert_eq!((method.projector.hidden, method.projector.out), (512, 128));
    assert_eq!((method.predictor.hidden, method.predictor.out), (512, 128));
    assert_eq!((config.batch, config.peak_lr()), (128, 5e-4));
    assert_eq!(config.schedule.length, Length::Steps(1500));
    assert_eq!(config.schedule.warmup, Warmup::Steps(150));
    assert_eq!(
        (config.augment.crop_min, config.augment.blur_p),
        (0.25, [0.0, 0.0])
    );
    assert_eq!((config.eval.knn_k, config.eval.knn_temperature), (20, 0.07));
}

/// RECIPES, the table: base lr 1.5e-4 at 4096 pictures, 40 of 300 epochs.
#[test]
fn the_papers_recipes_differ_only_in_the_model() {
    let (small, base) = (load(SHIPPED[2]), load(SHIPPED[3]));
    assert!((base.peak_lr() - 2.4e-3).abs() < 1e-12);
    assert_eq!(base.schedule.length, Length::Epochs(300.0));
    assert_eq!(base.schedule.warmup, Warmup::Epochs(40.0));
    // The authors' 312 steps an epoch.
    assert_eq!(1_281_167 / base.batch, 312);
    let changed: Vec<String> = xla_moco::config::diff_that_matters(&small, &base)
        .into_iter()
        .map(|difference| difference.key)
        .collect();
    assert_eq!(changed, ["model.arch", "model.dim"]);
}

#[test]
fn the_schema_describes_every_file_also_one_with_a_base() {
    /// Every key of `value` is a property of `schema`, of a type it allows,
    /// and no key is asked for.
    fn fits(value: &Value, schema: &Value, path: &str) {
        assert_eq!(schema.get("required"), None, "{path}");
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
    for file in SHIPPED {
        let text = std::fs::read(root().join(file)).unwrap();
        fits(&serde_json::from_slice(&text).unwrap(), &schema, file);
    }
}

#[test]
fn what_is_shown_resolves_to_itself() {
    let shown = xla_moco(&["configs", "show", "--config", SHIPPED[3], "--devices", "8"]);
    let value: Value = serde_json::from_slice(&shown.stdout).expect("JSON and nothing else");
    assert_eq!(value["mesh"]["data"], 8);
    let again = RunConfig::from_value(value.clone()).unwrap();
    assert_eq!(again.to_value(), value);
}

#[test]
fn the_binary_answers_in_words_and_exit_codes() {
    let [quickstart, ..] = SHIPPED;
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
        &["configs", "--check"],
        0,
        &["ok     configs/quickstart.json"],
        &[],
    );
    check(
        &["configs", "diff", SHIPPED[2], SHIPPED[3]],
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

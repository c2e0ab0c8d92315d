//! `xla-moco bench` through the binary, on the CPU plugin.

mod support;

use std::process::{Command, Output};

use serde_json::Value as Json;
use support::evaluation::{json, refused};

/// A step of a few milliseconds.
const SMALL: [&str; 8] = [
    "--set",
    "batch=16",
    "--set",
    "model.blocks=2",
    "--set",
    "model.dim=32",
    "--set",
    "data.synthetic={\"classes\": 4, \"images\": 200, \"test_images\": 0, \"size\": 32}",
];

fn bench(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--config", "configs/quickstart.json", "--json"])
        .args(SMALL)
        .args(more)
        .output()
        .unwrap()
}

fn number(report: &Json, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Json::as_f64);
    value.unwrap_or_else(|| panic!("no number {pointer} in {report:#}"))
}

fn about(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn times_a_step_with_and_without_its_input() {
    let report = json(&bench(&[
        "--steps",
        "4",
        "--warmup",
        "1",
        "--peak-tflops",
        "2",
    ]));
    for kind in ["without_input", "with_input"] {
        let at = |key: &str| number(&report, &format!("/{kind}/{key}"));
        let [min, p10, median, p90, max] =
            ["min", "p10", "median", "p90", "max"].map(|key| at(&format!("step_seconds/{key}")));
        assert!(0.0 < min && min <= p10 && p10 <= median, "{report:#}");
        assert!(median <= p90 && p90 <= max, "{report:#}");
        assert!(about(at("images_per_second"), 16.0 / median), "{report:#}");
        let expected = number(&report, "/model_flops") / median / 2e12;
        assert!(about(at("mfu"), expected), "{report:#}");
        assert!((0.0..=1.0).contains(&at("input_wait")), "{report:#}");
        assert!(at("last_loss").is_finite(), "{report:#}");
    }
    // The batch stays there: nothing to wait for.
    assert_eq!(number(&report, "/without_input/input_wait"), 0.0);
    assert_eq!(report["peak_memory_from"], "compiler");
    assert!(number(&report, "/peak_memory_bytes") > 0.0);
    assert_eq!(report["steps"], 4);
}

/// What is computed again to save memory is no use of the model.
#[test]
fn flops_of_the_model_are_those_of_the_plain_step() {
    let flops = |more: &[&str]| {
        let steps = ["--steps", "1", "--warmup", "1", "--core"];
        let report = json(&bench(&[&steps[..], more].concat()));
        assert_eq!(report["with_input"], Json::Null);
        assert_eq!(report["without_input"]["mfu"], Json::Null);
        number(&report, "/model_flops")
    };
    let plain = flops(&["--set", "lowering=unrolled"]);
    assert!(plain > 0.0);
    let less_memory = ["--set", "lowering=remat", "--set", "accumulate=2"];
    assert_eq!(plain, flops(&less_memory));
    assert_eq!(
        plain,
        flops(&["--set", "lowering=unrolled", "--devices", "2"])
    );
}

#[test]
fn what_cannot_be_timed_is_refused() {
    refused(&bench(&["--warmup", "0"]), "--steps is 20 and --warmup 0");
    refused(
        &bench(&["--set", "gpu.memory_fraction=1.5"]),
        "`gpu.memory_fraction` is 1.5; expected 0 to 1",
    );
    refused(&bench(&["--pjrt", "npu"]), "no plugin is known");
    // The compiler is the one to know its options.
    let unknown = r#"compiler_options={"xla_no_such_option": true}"#;
    let output = bench(&["--set", unknown]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("xla_no_such_option"), "{told}");
}

/// One configuration serves a GPU and the machine beside it.
#[test]
fn settings_of_gpus_are_no_matter_to_others() {
    let settings = r#"gpu={"memory_fraction": 0.5, "preallocate": false, "allocator": "bfc"}"#;
    let more = ["--steps", "1", "--warmup", "1", "--core", "--set", settings];
    let output = bench(&[&more[..], &["--set", "deterministic=true"]].concat());
    json(&output);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("takes no notice"), "{told}");
}

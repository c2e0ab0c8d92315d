//! Compiling for GPUs on a machine that has none, through the binary. Skips
//! where the CUDA plugin cannot be had.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};
use xla_moco::pjrt::install::{self, Need, ResolveOptions};

/// A ViT of two blocks with heads; f32 parameters and sums, bf16 products.
const DIM: usize = 64;
const PATCH: usize = 8;
const HIDDEN: usize = 128;
const OUT: usize = 32;

fn config() -> Json {
    json!({
        "batch": 64,
        "model": {
            "arch": "vit", "blocks": 2, "dim": DIM, "heads": 2, "patch": PATCH, "image_size": 32,
            "patch_projection": "frozen"
        },
        "method": {
            "projector": { "hidden": HIDDEN, "out": OUT },
            "predictor": { "hidden": HIDDEN, "out": OUT }
        },
        "optimizer": { "base_lr": 1e-3, "weight_decay": 0.1 },
        "schedule": { "epochs": 10 },
        "lowering": "unrolled",
        "data": { "path": "synthetic" }
    })
}

/// Numbers of parameters that are trained.
fn trained() -> usize {
    let linear = |from: usize, to: usize| from * to + to;
    let block = 2 * 2 * DIM
        + linear(DIM, 3 * DIM)
        + linear(DIM, DIM)
        + linear(DIM, 4 * DIM)
        + linear(4 * DIM, DIM);
    // The last BN of a head has no scale and shift; no linear map has a bias.
    let projector = DIM * HIDDEN + 2 * HIDDEN + HIDDEN * HIDDEN + 2 * HIDDEN + HIDDEN * OUT;
    let predictor = OUT * HIDDEN + 2 * HIDDEN + HIDDEN * OUT;
    let norm = 2 * DIM;
    DIM + 2 * block + norm + projector + predictor
}

fn compile(folder: &Path, target: &str, more: &[&str]) -> Output {
    let config_file = folder.join("tiny.json");
    std::fs::write(&config_file, config().to_string()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args(["compile", "--json", "--target", target, "--config"])
        .arg(&config_file)
        .args(more)
        // What compilers said before is not asked for.
        .env("XDG_CACHE_HOME", folder)
        .output()
        .unwrap()
}

/// A cache folder with the plugin and nothing else, if it can be had.
fn folder_with_plugin() -> Option<tempfile::TempDir> {
    let options = ResolveOptions {
        need: Need::Compile,
        ..ResolveOptions::default()
    };
    let known = match install::candidates("gpu") {
        Ok(known) => known[0],
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    if let Err(error) = install::install(known, &options) {
        eprintln!("skipped: the CUDA plugin cannot be had: {error:#}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("xla-moco");
    std::fs::create_dir(&cache).unwrap();
    let plugins = install::cache_folder().unwrap().join("plugins");
    std::os::unix::fs::symlink(plugins, cache.join("plugins")).unwrap();
    Some(folder)
}

fn report(output: &Output) -> Json {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn two_blocks_compile_for_one_and_for_eight_h100s() {
    let Some(folder) = folder_with_plugin() else {
        return;
    };
    let one = report(&compile(folder.path(), "gpu:h100:1", &[]));
    assert_eq!((&one["fits"], &one["devices"]), (&json!(true), &json!(1)));
    assert_eq!(one["collectives"], json!({}));
    let eight = report(&compile(folder.path(), "gpu:h100:8", &[]));
    let reduced = &eight["collectives"]["all-reduce"];
    assert!(reduced["count"].as_u64() >= Some(1), "{eight:#}");
    // Each gradient is a sum over devices, of products in bf16.
    let bytes = reduced["bytes"].as_u64().unwrap() as usize;
    assert!(bytes >= 2 * trained(), "{bytes} < 2 * {}", trained());
    for report in [&one, &eight] {
        assert_eq!(report["platform"], "cuda");
        assert!(report["temp_bytes"].as_u64() > Some(0), "{report:#}");
        // The state is updated in place.
        let [arguments, alias] = ["argument_bytes", "alias_bytes"].map(|key| report[key].as_u64());
        assert!(
            alias.unwrap() > 12 * trained() as u64 && alias < arguments,
            "{report:#}"
        );
    }

    // Fused attention: on eight cards each calls it on its own rows, and no
    // array is gathered for it. What the model does stays what it is.
    let fused = ["--set", "model.attention=fused"];
    let eight_fused = report(&compile(folder.path(), "gpu:h100:8", &fused));
    let gathers = |report: &Json| report["collectives"]["all-gather"]["bytes"].clone();
    assert_eq!(gathers(&eight_fused), gathers(&eight));
    assert_eq!(eight_fused["model_flops"], eight["model_flops"]);
    let refused = compile(folder.path(), "cpu:1", &fused);
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(
        told.contains("`model.attention` is \"fused\", cuDNN's"),
        "{told}"
    );
}

#[test]
fn the_compiler_takes_our_options_and_refuses_what_it_does_not_know() {
    let Some(folder) = folder_with_plugin() else {
        return;
    };
    let output = compile(
        folder.path(),
        "gpu:h100:1",
        &["--set", "deterministic=true"],
    );
    assert_eq!(report(&output)["fits"], true);
    let unknown = r#"compiler_options={"xla_gpu_no_such_option": true}"#;
    let output = compile(folder.path(), "gpu:h100:1", &["--set", unknown]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("xla_gpu_no_such_option"), "{told}");
}

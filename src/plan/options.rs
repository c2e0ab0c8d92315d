//! What a train step is compiled with beside its program.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::bad_input;
use crate::config::{Attention, RunConfig};
use crate::pjrt::{CompileOptions, OptionValue};

/// The options of a configuration's train step on a platform (`cpu`, `cuda`,
/// `rocm`, `tpu`). `autotune` is the folder in which a GPU's compiler keeps
/// which kernels it found fastest.
///
/// A GPU's compiler chooses kernels by measuring them, and some add up in any
/// order. With `deterministic` it does neither. It then finds no kernel for the
/// products that it has given to Triton (seen with the plugin of JAX 0.12), so
/// these are taken back.
pub fn step_options(config: &RunConfig, platform: &str, autotune: Option<&Path>) -> CompileOptions {
    let mut all: Vec<(&str, OptionValue)> = Vec::new();
    if matches!(platform, "cuda" | "rocm") {
        if config.deterministic {
            all.push(("xla_gpu_deterministic_ops", OptionValue::Bool(true)));
            all.push(("xla_gpu_enable_triton_gemm", OptionValue::Bool(false)));
        }
        // A name that is no UTF-8 only costs the next compilation its time.
        if let Some(folder) = autotune.and_then(Path::to_str) {
            let folder = OptionValue::Text(folder.to_owned());
            all.push(("xla_gpu_per_fusion_autotune_cache_dir", folder));
        }
    }
    let all = all
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let given = config.compiler_options.iter();
    let given = given.filter_map(|(name, value)| Some((name.clone(), option(value)?)));
    CompileOptions {
        num_partitions: config.mesh.data,
        // Of two of one name, the last counts.
        env_overrides: all.chain(given).collect(),
    }
}

/// Refuses a train step that a platform's compiler cannot take.
///
/// # Errors
/// [`crate::error::BadInput`].
pub fn check_platform(config: &RunConfig, platform: &str) -> Result<()> {
    let is_fused = config
        .model
        .vit()
        .is_some_and(|vit| vit.attention == Attention::Fused);
    if is_fused && platform != "cuda" {
        return Err(bad_input!(
            "`model.attention` is \"fused\", cuDNN's for NVIDIA's GPUs, and the platform is \
             {platform}: set it to \"plain\""
        ));
    }
    Ok(())
}

/// None for what the configuration's checks refuse.
fn option(value: &Value) -> Option<OptionValue> {
    match value {
        Value::Bool(on) => Some(OptionValue::Bool(*on)),
        Value::String(text) => Some(OptionValue::Text(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(OptionValue::Int(whole)),
            None => number.as_f64().map(OptionValue::Float),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(more: Value, platform: &str) -> Vec<(String, OptionValue)> {
        let mut config = json!({
            "batch": 64, "model": {"arch": "vit_small"},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1}, "schedule": {"epochs": 10},
        });
        let object = config.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        let config = RunConfig::from_value(config).unwrap();
        step_options(&config, platform, Some(Path::new("/kept"))).env_overrides
    }

    fn named(name: &str, value: OptionValue) -> (String, OptionValue) {
        (name.to_owned(), value)
    }

    #[test]
    fn only_gpus_have_options_of_their_own() {
        assert_eq!(options(json!({"deterministic": true}), "cpu"), []);
        assert_eq!(options(json!({"deterministic": true}), "tpu"), []);
        let kept = OptionValue::Text("/kept".into());
        let kept = named("xla_gpu_per_fusion_autotune_cache_dir", kept);
        assert_eq!(options(json!({}), "cuda"), std::slice::from_ref(&kept));
        let expected = [
            named("xla_gpu_deterministic_ops", OptionValue::Bool(true)),
            named("xla_gpu_enable_triton_gemm", OptionValue::Bool(false)),
            kept,
        ];
        assert_eq!(options(json!({"deterministic": true}), "cuda"), expected);
    }

    #[test]
    fn what_the_configuration_gives_comes_last_with_its_own_types() {
        let given = json!({"xla_a": true, "xla_b": 3, "xla_c": 0.5, "xla_d": "x"});
        let expected = [
            named("xla_a", OptionValue::Bool(true)),
            named("xla_b", OptionValue::Int(3)),
            named("xla_c", OptionValue::Float(0.5)),
            named("xla_d", OptionValue::Text("x".into())),
        ];
        assert_eq!(options(json!({"compiler_options": given}), "cpu"), expected);
    }
}

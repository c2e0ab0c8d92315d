//! The ViT forward, and all its gradients, in each lowering.

use serde_json::json;
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Value};
use xla_moco::models::{Trunk, backbone};
use xla_moco::nn::{Mode, Site, Variables};

use crate::fixture::{Program, assert_close, client, declare, read};

/// The small model of the fixtures; see their README.
pub fn config() -> RunConfig {
    let head = |layers: usize| json!({"layers": layers, "hidden": 32, "out": 16});
    RunConfig::from_value(json!({
        "batch": 8,
        "model": {
            "arch": "vit", "blocks": 2, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "compute_dtype": "f32",
        },
        "method": {
            "name": "moco_v3", "temperature": 0.2, "momentum": 0.9,
            "projector": head(3), "predictor": head(2),
        },
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": 5, "warmup_steps": 1},
    }))
    .unwrap()
}

#[test]
fn forward_and_gradients() {
    let mut tensors = read("vit.safetensors");
    let expected = tensors.clone();
    tensors.retain(|name, _| name != "y" && !name.starts_with("grad."));
    let client = client();
    for lowering in Lowering::ALL {
        let b = Builder::new();
        let inputs = declare(&b, &tensors);
        let variables = Variables::new(inputs.clone());
        let site = Site::new(&b, &variables, DType::F32, Mode::Train);
        let trunk = Trunk {
            lowering,
            differentiable: true,
            views: 1,
            drop_path: false,
        };
        let y = backbone(&site, &config().model, trunk, inputs["x"]).unwrap();
        b.output("y", y);
        let names: Vec<&String> = inputs
            .keys()
            .filter(|name| expected.contains_key(&format!("grad.{name}")))
            .collect();
        assert_eq!(
            names.len(),
            1 + 3 + 2 * 12 + 2,
            "x, embedding, blocks, norm"
        );
        let wrt: Vec<Value> = names.iter().map(|name| inputs[*name]).collect();
        let found = cotangents(&b, &[(y, inputs["ct"])], &wrt).unwrap();
        for (name, gradient) in names.iter().zip(found) {
            b.output(format!("grad.{name}"), gradient.unwrap());
        }
        let found = Program::new(&client, b.finish().unwrap()).call(&tensors);
        for (name, found) in &found {
            let what = format!("{lowering:?}: {name}");
            assert_close(&what, found, &expected[name], 1e-5);
        }
    }
}

//! Every kind of backbone under MoCo v3: loss and all gradients of the first
//! step, losses and state over three steps, features in evaluation form.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::{Builder, DType};
use xla_moco::models::{self, Trunk};
use xla_moco::nn::{Mode, Site, Variables};

use crate::fixture::{Program, assert_close, client, declare, part, read};
use crate::training::{compare, first_gradients, loss_agrees, start, tensors, train};

/// f32 arithmetic in another order. Batches of 8 through BN make gradients
/// sensitive: PyTorch in f32 is up to 1.4e-5 off PyTorch in f64.
const BOUND: f64 = 4e-5;

/// The cases of tools/reference/backbones_torch.py: `model`, `bn_crops`, and
/// the number of trained parameters.
fn cases() -> Vec<(&'static str, Json, &'static str, usize)> {
    let resnet = |block: &str, stages: &[usize], stem: &str| {
        json!({
            "arch": "resnet", "block": block, "stages": stages, "width": 8, "stem": stem,
            "image_size": 16, "compute_dtype": "f32",
        })
    };
    let vit = |options: Json| {
        let mut model = json!({
            "arch": "vit", "blocks": 1, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "compute_dtype": "f32",
        });
        for (key, value) in options.as_object().unwrap() {
            model[key] = value.clone();
        }
        model
    };
    // Of heads: 4 of the projector, 4 of a ResNet's predictor, 4 of a ViT's.
    let heads = |predictor: usize| 4 + predictor;
    vec![
        (
            "resnet_bottleneck",
            resnet("bottleneck", &[1, 2], "7x7"),
            "apart",
            3 + 9 + 3 + 9 + 3 + 9 + heads(4),
        ),
        (
            "resnet_basic",
            resnet("basic", &[1, 2], "3x3"),
            "apart",
            3 + 6 + 6 + 3 + 6 + heads(4),
        ),
        (
            "resnet_crops_together",
            resnet("basic", &[1], "7x7"),
            "together",
            3 + 6 + heads(4),
        ),
        (
            "vit_bn",
            vit(json!({"mlp_norm": "batch", "blocks": 2})),
            "apart",
            1 + 2 * 12 + 2 + heads(4),
        ),
        (
            "vit_bn_pool",
            vit(json!({"mlp_norm": "batch", "output": "pool", "position": "none"})),
            "apart",
            12 + heads(4),
        ),
        (
            "patch_learned",
            vit(json!({"patch_projection": "learned", "position": "learned"})),
            "apart",
            1 + 1 + 2 + 12 + 2 + heads(4),
        ),
        (
            "patch_bn",
            vit(json!({"patch_projection": "batch_norm"})),
            "apart",
            1 + 4 + 12 + 2 + heads(4),
        ),
        (
            "patch_wn",
            vit(json!({"patch_projection": "weight_norm"})),
            "apart",
            1 + 3 + 12 + 2 + heads(4),
        ),
        (
            "conv_stem",
            vit(json!({"patch_projection": "conv_stem"})),
            "apart",
            1 + 8 + 12 + 2 + heads(4),
        ),
        (
            "norm_pool",
            vit(json!({"output": "norm_pool"})),
            "apart",
            12 + 2 + heads(4),
        ),
        (
            "pool",
            vit(json!({"output": "pool", "position": "learned", "patch": 2})),
            "apart",
            1 + 12 + heads(4),
        ),
    ]
}

fn config(case: &str, model: Json, crops: &str) -> RunConfig {
    let optimizer = match case {
        "resnet_bottleneck" => json!({"name": "lars", "base_lr": 1e-3, "weight_decay": 1.5e-2}),
        _ => json!({"name": "sgd", "base_lr": 1e-3, "weight_decay": 0, "momentum": 0}),
    };
    RunConfig::from_value(json!({
        "batch": 8,
        "model": model,
        "method": {
            "temperature": 0.2, "bn_crops": crops,
            "projector": {"layers": 2, "hidden": 32, "out": 16},
            "predictor": {"layers": 2, "hidden": 32, "out": 16},
        },
        "optimizer": optimizer,
        "schedule": {"total_steps": 3},
    }))
    .unwrap()
}

#[test]
fn loss_and_gradients_of_the_first_step() {
    let fixture = read("backbones.safetensors");
    for (case, model, crops, trained) in cases() {
        let config = config(case, model, crops);
        let own = tensors(&fixture, case);
        // Statistics leave a recomputed block in these two.
        let all = matches!(case, "resnet_bottleneck" | "vit_bn");
        let lowerings = models::lowerings(&config.model);
        for lowering in lowerings.take(if all { usize::MAX } else { 1 }) {
            let what = format!("{case}, {lowering:?}");
            let mut found = first_gradients(&own, &config, start(&own, &config), lowering);
            let loss = found.remove("loss").unwrap().values()[0];
            loss_agrees(&what, loss, own["loss"].values()[0]);
            let expected = part(&own, "grad");
            assert_eq!(expected.len(), trained, "{what}");
            assert!(found.keys().eq(expected.keys()), "{what}");
            for (name, wanted) in &expected {
                let what = format!("{what}: gradient of {name}");
                compare(&what, &found[name], wanted, BOUND);
            }
        }
    }
}

#[test]
fn three_steps_of_training() {
    let fixture = read("backbones.safetensors");
    for (case, model, crops, _) in cases() {
        let config = config(case, model, crops);
        let own = tensors(&fixture, case);
        let found = train(&own, &config, start(&own, &config), 3);
        let losses = own["loss"].values();
        for (t, metrics) in found.metrics.iter().enumerate() {
            loss_agrees(&format!("{case}, step {t}"), metrics[0], losses[t]);
        }
        let expected = part(&own, "final");
        let buffers = expected.keys().filter(|name| name.contains("running_"));
        assert!(buffers.count() >= 10, "{case}");
        for (name, wanted) in &expected {
            let what = format!("{case}: final {name}");
            compare(&what, &found.state[name], wanted, BOUND);
        }
    }
}

#[test]
fn features_in_evaluation_form() {
    let fixture = read("backbones.safetensors");
    for (case, model, crops, _) in cases() {
        let config = config(case, model, crops);
        let own = tensors(&fixture, case);
        let mut inputs = part(&part(&own, "init"), "base_encoder");
        let specs = models::specs(&config.model);
        inputs.retain(|name, _| specs.iter().any(|spec| spec.name == *name));
        assert_eq!(inputs.len(), specs.len(), "{case}");
        inputs.insert("x".into(), own["x1.0"].clone());
        let b = Builder::new();
        let values = declare(&b, &inputs);
        let variables = Variables::new(values.clone());
        let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate);
        let y = models::backbone(&site, &config.model, Trunk::PLAIN, values["x"]).unwrap();
        b.output("y", y);
        let found = Program::new(&client(), b.finish().unwrap()).call(&inputs);
        assert_close(case, &found["y"], &own["features"], 5e-6);
    }
}

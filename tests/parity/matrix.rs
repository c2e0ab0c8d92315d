//! Where methods, backbones and optimizers meet: SimCLR, BYOL and SwAV on a
//! ResNet with the heads of their papers by LARS, MoCo v3 on a ResNet, a ViT-BN
//! and a ConvStem ViT by AdamW and by LAMB. Loss and all gradients of the first
//! step, losses and state over three.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;

use crate::fixture::{Tensor, Tensors, part, read};
use crate::training::{
    compare, first_gradients, is_noise, keys_third, loss_agrees, start, tensors, train,
};

/// f32 arithmetic in another order. Batches of 8 through BN make gradients
/// sensitive: PyTorch in f32 is up to 1.6e-5 off PyTorch in f64. Every
/// parameter moves by 2e-3 of its norm or more in the three steps.
const BOUND: f64 = 4e-5;

/// A case of tools/reference/matrix_torch.py: its name, `model`, `method`, the
/// number of trained parameters, `optimizer` by name.
struct Case {
    name: &'static str,
    model: Json,
    method: Json,
    trained: usize,
    optimizers: Vec<(&'static str, Json)>,
}

fn cases() -> Vec<Case> {
    let resnet = json!({
        "arch": "resnet", "block": "bottleneck", "stages": [1, 1], "width": 8, "stem": "7x7",
        "image_size": 16, "compute_dtype": "f32",
    });
    // The stem, and two bottlenecks with a convolution in the shortcut.
    let in_resnet = 3 + 2 * 12;
    let vit = |key: &str, value: &str| {
        let mut model = json!({
            "arch": "vit", "blocks": 1, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "compute_dtype": "f32",
        });
        model[key] = value.into();
        model
    };
    let head = |norm: &str| json!({"layers": 2, "hidden": 32, "out": 16, "norm": norm});
    let lars = json!({
        "name": "lars", "base_lr": 1e-3, "weight_decay": 0.05, "trust_coefficient": 0.1,
    });
    let adaptive = |extra: Json| {
        ["adamw", "lamb"].map(|name| {
            let mut optimizer = json!({"name": name, "base_lr": 1e-3, "weight_decay": 0.1});
            for (key, value) in extra.as_object().unwrap() {
                optimizer[key] = value.clone();
            }
            (name, optimizer)
        })
    };
    let moco = |predictor: &str| json!({"temperature": 0.2, "projector": head("all"), "predictor": head(predictor)});
    vec![
        Case {
            name: "simclr_resnet",
            model: resnet.clone(),
            method: json!({"name": "simclr", "temperature": 0.1, "projector": head("all")}),
            trained: in_resnet + 4,
            optimizers: vec![("lars", lars.clone())],
        },
        Case {
            name: "byol_resnet",
            model: resnet.clone(),
            method: json!({
                "name": "byol", "projector": head("hidden"), "predictor": head("hidden"),
            }),
            trained: in_resnet + 4 + 4,
            optimizers: vec![("lars", lars.clone())],
        },
        Case {
            name: "swav_resnet",
            model: resnet.clone(),
            method: json!({
                "name": "swav", "temperature": 0.1, "projector": head("hidden"),
                "swav": {"prototypes": 10, "freeze_prototypes_steps": 1},
            }),
            trained: in_resnet + 4 + 1,
            optimizers: vec![("lars", lars)],
        },
        Case {
            name: "moco_v3_resnet",
            model: resnet,
            method: moco("hidden"),
            trained: in_resnet + 4 + 4,
            optimizers: adaptive(json!({})).into(),
        },
        Case {
            name: "moco_v3_vit_bn",
            model: vit("mlp_norm", "batch"),
            method: moco("all"),
            trained: 1 + 12 + 2 + 4 + 4,
            optimizers: adaptive(json!({})).into(),
        },
        Case {
            name: "moco_v3_conv_stem",
            model: vit("patch_projection", "conv_stem"),
            method: moco("all"),
            trained: 1 + 8 + 12 + 2 + 4 + 4,
            // Both clip in every step.
            optimizers: adaptive(json!({
                "clip_norm": 0.5,
                "groups": [{"pattern": "base_encoder.patch_embed.*", "clip_norm": 0.05}],
            }))
            .into(),
        },
    ]
}

fn config(case: &Case, optimizer: &Json) -> RunConfig {
    RunConfig::from_value(json!({
        "batch": 8,
        "model": case.model,
        "method": case.method,
        "optimizer": optimizer,
        "schedule": {"total_steps": 3},
    }))
    .unwrap()
}

/// The part of a parameter, or of its gradient, that two programs can agree
/// on. The rest has a gradient of zero in theory and rounding noise in practice,
/// which AdamW and LAMB make steps of: the keys' part of an attention's bias,
/// and the final norm's bias of a ViT (the projector's first BN removes it).
fn comparable(name: &str, tensor: &Tensor) -> Option<Tensor> {
    if is_noise(name) {
        return None;
    }
    let mut tensor = tensor.clone();
    if name.ends_with("attn.qkv.bias") {
        keys_third(&mut tensor);
    }
    Some(tensor)
}

fn agree(what: &str, name: &str, found: &Tensor, wanted: &Tensor, bound: f64) {
    let parts = (comparable(name, found), comparable(name, wanted));
    if let (Some(found), Some(wanted)) = parts {
        compare(&format!("{what} {name}"), &found, &wanted, bound);
    }
}

#[test]
fn loss_and_gradients_of_the_first_step() {
    let fixture = read("matrix.safetensors");
    for case in cases() {
        let own = tensors(&fixture, case.name);
        // No gradient depends on the optimizer.
        let (optimizer, settings) = &case.optimizers[0];
        let config = config(&case, settings);
        let mut found = first_gradients(&own, &config, start(&own, &config), Lowering::Unrolled);
        let loss = found.remove("loss").unwrap().values()[0];
        let wanted = own[&format!("{optimizer}.loss")].values()[0];
        loss_agrees(case.name, loss, wanted);
        let expected = part(&own, "grad");
        assert_eq!(expected.len(), case.trained, "{}", case.name);
        assert!(found.keys().eq(expected.keys()), "{}", case.name);
        for (name, wanted) in &expected {
            let what = format!("{}: gradient of", case.name);
            agree(&what, name, &found[name], wanted, BOUND);
            if is_noise(name) {
                let found = found[name].values();
                let largest = found.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                assert!(largest <= 1e-6, "{what} {name}: {largest:e}, not 0");
            }
        }
    }
}

#[test]
fn three_steps_of_training() {
    let fixture = read("matrix.safetensors");
    for case in cases() {
        let mut own = tensors(&fixture, case.name);
        for (optimizer, settings) in &case.optimizers {
            let what = format!("{} by {optimizer}", case.name);
            let config = config(&case, settings);
            own.insert("lr".into(), own[&format!("{optimizer}.lr")].clone());
            let found = train(&own, &config, start(&own, &config), 3);
            let losses = own[&format!("{optimizer}.loss")].values();
            for (t, metrics) in found.metrics.iter().enumerate() {
                loss_agrees(&format!("{what}, step {t}"), metrics[0], losses[t]);
            }
            let expected: Tensors = part(&own, &format!("{optimizer}.final"));
            let trained = part(&own, "grad");
            assert!(trained.keys().all(|name| expected.contains_key(name)));
            let buffers = part(&own, "init");
            let mut buffers = buffers.keys().filter(|name| name.contains("running_"));
            assert!(buffers.all(|name| expected.contains_key(name)));
            for (name, wanted) in &expected {
                let bound = match name.ends_with("_encoder.head.1.running_mean") {
                    // The noise of the final norm's bias shifts it.
                    true => 5e-3,
                    false => BOUND,
                };
                agree(
                    &format!("{what}: final"),
                    name,
                    &found.state[name],
                    wanted,
                    bound,
                );
            }
        }
    }
}

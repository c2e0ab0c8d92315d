//! Every layer: its value and all its gradients.

use std::collections::BTreeMap;

use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Result, Value};
use xla_moco::methods::info_nce;
use xla_moco::nn::{
    Mode, Site, Variables, attention, batch_norm, cross_entropy, gelu, l2_normalize, layer_norm,
    linear, mlp, patch_embed, sincos_2d,
};

use crate::fixture::{Program, Tensor, assert_close, client, declare, part, read};

/// f32 arithmetic of the same equations in another order.
const BOUND: f64 = 3e-6;

type Inputs = BTreeMap<String, Value>;
type Layer = fn(&Site, &Inputs) -> Result<Value>;

/// Runs `layer` on the case's inputs; compares its value, the gradient of
/// each input for which the fixture has one, and renewed buffers.
fn check(case: &str, mode: Mode, layer: Layer) {
    let mut tensors = part(&read("layers.safetensors"), case);
    if case == "patch_embed" {
        for name in ["weight", "bias"] {
            for (new, old) in [
                (format!("proj.{name}"), name.to_owned()),
                (format!("grad.proj.{name}"), format!("grad.{name}")),
            ] {
                let tensor = tensors.remove(&old).unwrap();
                tensors.insert(new, tensor);
            }
        }
    }
    let expected = tensors.clone();
    tensors
        .retain(|name, _| name != "y" && !name.starts_with("grad.") && !name.starts_with("new_"));

    let b = Builder::new();
    let inputs = declare(&b, &tensors);
    let variables = Variables::new(inputs.clone());
    let site = Site::new(&b, &variables, DType::F32, mode);
    let y = layer(&site, &inputs).unwrap();
    b.output("y", y);
    let with_gradient: Vec<&String> = inputs
        .keys()
        .filter(|name| expected.contains_key(&format!("grad.{name}")))
        .collect();
    let wrt: Vec<Value> = with_gradient.iter().map(|name| inputs[*name]).collect();
    let gradients = cotangents(&b, &[(y, inputs["ct"])], &wrt).unwrap();
    for (name, gradient) in with_gradient.iter().zip(gradients) {
        b.output(format!("grad.{name}"), gradient.unwrap());
    }
    for name in ["running_mean", "running_var"] {
        if expected.contains_key(&format!("new_{name}")) {
            b.output(format!("new_{name}"), site.get(name).unwrap());
        }
    }
    let found = Program::new(&client(), b.finish().unwrap()).call(&tensors);
    let wanted = expected
        .iter()
        .filter(|(name, _)| !tensors.contains_key(*name));
    let mut compared = 0;
    for (name, wanted) in wanted {
        let mut found = found[name].clone();
        let mut wanted = wanted.clone();
        if name == "grad.qkv.bias" {
            // The keys' third is zero in theory; see the fixtures' README.
            for tensor in [&mut found, &mut wanted] {
                let third = tensor.bytes.len() / 3;
                tensor.bytes[third..2 * third].fill(0);
            }
        }
        assert_close(&format!("{case}: {name}"), &found, &wanted, BOUND);
        compared += 1;
    }
    assert!(compared >= 2, "{case}: only {compared} tensors compared");
}

#[test]
fn linear_layers() {
    check("linear", Mode::Train, |site, i| linear(site, i["x"]));
    check("linear_no_bias", Mode::Train, |site, i| {
        linear(site, i["x"])
    });
}

#[test]
fn norms() {
    check("layer_norm", Mode::Train, |site, i| {
        layer_norm(site, i["x"])
    });
    check("batch_norm", Mode::Train, |site, i| {
        batch_norm(site, i["x"])
    });
    check("batch_norm_no_affine", Mode::Train, |site, i| {
        batch_norm(site, i["x"])
    });
    check("batch_norm_eval", Mode::Evaluate, |site, i| {
        batch_norm(site, i["x"])
    });
}

#[test]
fn attention_and_mlp() {
    check("attention", Mode::Train, |site, i| {
        attention(site, i["x"], 3)
    });
    check("mlp", Mode::Train, |site, i| mlp(site, i["x"]));
    check("gelu", Mode::Train, |site, i| gelu(site, i["x"]));
}

#[test]
fn patch_embedding() {
    check("patch_embed", Mode::Train, |site, i| {
        patch_embed(site, i["x"])
    });
}

#[test]
fn losses() {
    check("l2_normalize", Mode::Train, |site, i| {
        l2_normalize(site.b, i["x"])
    });
    check("softmax_cross_entropy", Mode::Train, |site, i| {
        cross_entropy(site.b, i["logits"], i["labels"])
    });
    check("contrastive", Mode::Train, |site, i| {
        let k = site.b.stop_gradient(i["k"])?;
        site.b.scale(info_nce(site.b, i["q"], k, 0.2)?, 2.0 * 0.2)
    });
}

#[test]
fn position_tables() {
    let tensors = read("layers.safetensors");
    let table = Tensor::f32(&[17, 24], &sincos_2d(4, 24));
    assert_close("4x4", &table, &tensors["position.4x4.table"], 1e-7);

    let table = sincos_2d(14, 384);
    let index = &tensors["position.14x14.index"].bytes;
    let rows: Vec<f32> = index
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as usize)
        .flat_map(|row| table[row * 384..][..384].to_vec())
        .collect();
    let rows = Tensor::f32(&[rows.len() / 384, 384], &rows);
    assert_close("14x14", &rows, &tensors["position.14x14.table"], 1e-7);
}

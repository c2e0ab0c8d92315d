//! torchvision's whole ResNet-50 and ResNet-18: names and layouts, features in
//! both forms, renewed statistics, all gradients.

use serde_json::json;
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Value};
use xla_moco::models::{self, Trunk};
use xla_moco::nn::{Mode, Role, Site, Variables};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, declare, part, read};

/// Numbers of [-1, 1) by multiplicative hashing of name and place: those of
/// tools/reference/backbones_torch.py.
fn hashed(name: &str, count: usize) -> Vec<f32> {
    let step = |seed: u32, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte));
    let seed = name.bytes().fold(0, step);
    let number = |place: usize| {
        let mut x = (place as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(seed);
        x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        (f64::from(x) / f64::from(1u32 << 31) - 1.0) as f32
    };
    (0..count).map(number).collect()
}

/// A variable's value; `last` is the last BN of each block.
fn filled(name: &str, dims: &[usize], last: &str) -> Tensor {
    let count = dims.iter().product();
    let mut values = hashed(name, count);
    let fan_in: usize = dims[1..].iter().product();
    let bound = (6.0 / fan_in as f64).sqrt() as f32;
    for value in &mut values {
        *value = match name {
            _ if dims.len() > 1 => *value * bound,
            _ if name.ends_with("weight") || name.ends_with("running_var") => {
                let gain = 1.0 + *value * 0.1;
                gain * if name.ends_with(&format!(".{last}.weight")) {
                    0.2
                } else {
                    1.0
                }
            }
            _ => *value * 0.1,
        };
    }
    Tensor::f32(dims, &values)
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Of `wanted` there are sixteen elements, evenly taken, and the norm of all.
fn probe_agrees(what: &str, found: &Tensor, wanted: &Tensor, bound: f64) {
    let (found, wanted) = (found.values(), wanted.values());
    let (sixteen, all) = (&wanted[..16], wanted[16]);
    let off = (norm(&found) / all - 1.0).abs();
    assert!(off <= bound, "{what}: norm {}, not {all}", norm(&found));
    let count = found.len();
    let differences: Vec<f64> = (0..16)
        .map(|i| found[i * count / 16] - sixteen[i])
        .collect();
    // The sixteen may be far smaller than the rest, and no more exact.
    let usual = all * (16.0 / count as f64).sqrt();
    let off = norm(&differences) / norm(sixteen).max(usual);
    assert!(off <= bound, "{what}: {off:e} off, more than {bound:e}");
}

/// The backbone in one form, with its renewed statistics or its gradients.
fn run(model: &xla_moco::config::Model, inputs: &Tensors, mode: Mode) -> Tensors {
    let b = Builder::new();
    let values = declare(&b, inputs);
    let variables = Variables::new(values.clone());
    let site = Site::new(&b, &variables, DType::F32, mode);
    let trunk = Trunk {
        lowering: Lowering::Unrolled,
        differentiable: true,
        views: 1,
        drop_path: false,
    };
    let y = models::backbone(&site, model, trunk, values["x"]).unwrap();
    b.output("y", y);
    let specs = models::specs(model);
    let of = |role| specs.iter().filter(move |spec| spec.role == role);
    if mode == Mode::Train {
        for spec in of(Role::Buffer) {
            b.output(format!("new.{}", spec.name), site.get(&spec.name).unwrap());
        }
    } else {
        let wrt: Vec<Value> = of(Role::Trained).map(|spec| values[&spec.name]).collect();
        let found = cotangents(&b, &[(y, values["ct"])], &wrt).unwrap();
        for (spec, gradient) in of(Role::Trained).zip(found) {
            b.output(format!("grad.{}", spec.name), gradient.unwrap());
        }
    }
    Program::new(&client(), b.finish().unwrap()).call(inputs)
}

#[test]
fn the_whole_network() {
    let fixture = read("resnet50.safetensors");
    for (arch, last, parameters) in [("resnet18", "bn2", 60), ("resnet50", "bn3", 159)] {
        let config = RunConfig::from_value(json!({
            "batch": 8,
            "model": {"arch": arch, "image_size": 64, "compute_dtype": "f32"},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0},
            "schedule": {"total_steps": 3},
        }));
        let model = config.unwrap().model;
        let own = part(&fixture, arch);
        let mut inputs = Tensors::new();
        let specs = models::specs(&model);
        let shapes = part(&own, "shape");
        assert_eq!(specs.len(), shapes.len(), "{arch}");
        for spec in &specs {
            let dims = shapes[&spec.name].bytes.chunks_exact(4);
            let dims: Vec<usize> = dims
                .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as usize)
                .collect();
            assert_eq!(spec.dims, dims, "{arch}: {}", spec.name);
            inputs.insert(spec.name.clone(), filled(&spec.name, &dims, last));
        }
        let dims = [2, 3, 64, 64];
        let x = Tensor::f32(&dims, &hashed("x", dims.iter().product()));
        inputs.insert("x".into(), x);

        let found = run(&model, &inputs, Mode::Train);
        assert_close(arch, &found["y"], &own["trained"], 1e-5);
        let new = part(&own, "new");
        assert_eq!(new.len() + parameters, specs.len());
        for (name, wanted) in &new {
            let what = format!("{arch}: new {name}");
            probe_agrees(&what, &found[&format!("new.{name}")], wanted, 1e-5);
        }

        // A picture on which no ReLU is near 0: see the fixtures' README.
        let picture = i32::from_le_bytes(own["picture"].bytes[..].try_into().unwrap());
        for (input, name, dims) in [
            ("x", format!("x.{picture}"), vec![1, 3, 32, 32]),
            ("ct", "ct".into(), vec![1, model.features()]),
        ] {
            let values = hashed(&name, dims.iter().product());
            inputs.insert(input.into(), Tensor::f32(&dims, &values));
        }
        let found = run(&model, &inputs, Mode::Evaluate);
        assert_close(arch, &found["y"], &own["evaluated"], 3e-6);
        let gradients = part(&own, "grad");
        assert_eq!(gradients.len(), parameters);
        for (name, wanted) in &gradients {
            let what = format!("{arch}: gradient of {name}");
            probe_agrees(&what, &found[&format!("grad.{name}")], wanted, 1e-5);
        }
    }
}

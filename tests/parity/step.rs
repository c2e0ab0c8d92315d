//! Five whole steps of MoCo v3.

use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Shape, Value};
use xla_moco::methods::{self, Step};
use xla_moco::nn::{Role, Variables};
use xla_moco::programs::train_step::{TrainStep, Views, build, initial_state};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part, read};
use crate::vit::config;

/// The third of a `qkv.bias` that belongs to the keys.
fn keys_third(tensor: &mut Tensor) -> Vec<u8> {
    let third = tensor.bytes.len() / 3;
    tensor
        .bytes
        .splice(third..2 * third, vec![0; third])
        .collect()
}

/// Parameters whose gradient is zero in theory and noise in practice.
fn is_noise(name: &str) -> bool {
    name.ends_with("_encoder.norm.bias")
}

fn norm(bytes: &[u8]) -> f64 {
    let float = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
    let squares = bytes.chunks_exact(4).map(|b| float(b).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn every_gradient_of_the_first_step() {
    let fixture = read("moco_step.safetensors");
    let expected = part(&fixture, "grad");
    let config = config();
    let mut inputs = part(&fixture, "init");
    let b = Builder::new();
    let specs = methods::specs(&config);
    let variables = Variables::new(specs.iter().map(|spec| {
        let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
        (spec.name.clone(), value)
    }));
    let views = ["x1.0", "x2.0"].map(|name| b.input(name, fixture[name].shape));
    let m = b.input("m", Shape::scalar(DType::F32));
    let trained: Vec<_> = specs.iter().filter(|s| s.role == Role::Trained).collect();
    let wrt: Vec<Value> = trained
        .iter()
        .map(|spec| variables.get(&spec.name).unwrap())
        .collect();
    let forward = methods::forward(&Step {
        b: &b,
        config: &config,
        lowering: Lowering::Unrolled,
        variables: &variables,
        views,
        momentum: m,
    })
    .unwrap();
    b.output("loss", forward.loss);
    for (spec, gradient) in trained
        .iter()
        .zip(gradients(&b, forward.loss, &wrt).unwrap())
    {
        b.output(&spec.name, gradient);
    }
    for name in ["x1.0", "x2.0"] {
        inputs.insert(name.into(), fixture[name].clone());
    }
    let m = fixture["m"].values()[0] as f32;
    inputs.insert("m".into(), Tensor::f32(&[], &[m]));
    let mut found = Program::new(&client(), b.finish().unwrap()).call(&inputs);

    let loss = found.remove("loss").unwrap().values()[0];
    let wanted = fixture["loss"].values()[0];
    assert!((loss / wanted - 1.0).abs() < 1e-6, "{loss}, not {wanted}");
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, mut found) in found {
        let mut wanted = expected[&name].clone();
        if name.ends_with("qkv.bias") {
            let (noise, values) = (
                keys_third(&mut found),
                &found.bytes[found.bytes.len() / 3 * 2..],
            );
            assert!(
                norm(&noise) <= 1e-5 * norm(values),
                "{name}: the keys' part"
            );
            keys_third(&mut wanted);
        }
        if is_noise(&name) {
            assert!(
                norm(&found.bytes) <= 1e-6,
                "{name}: {:e}",
                norm(&found.bytes)
            );
        } else {
            assert_close(&name, &found, &wanted, 1e-5);
        }
    }
}

#[test]
fn five_steps_of_training() {
    let fixture = read("moco_step.safetensors");
    let config = config();
    let spec = TrainStep {
        config: &config,
        views: Views::Normalised,
        queue: 0,
        classes: 0,
        lowering: Lowering::Unrolled,
    };
    let program = Program::new(&client(), build(&spec).unwrap().graph);
    let mut state: Tensors = initial_state(&spec)
        .into_iter()
        .map(|array| {
            let tensor = Tensor {
                shape: array.shape,
                bytes: array.data,
            };
            (array.name, tensor)
        })
        .collect();
    for (name, tensor) in part(&fixture, "init") {
        let old = state.insert(name.clone(), tensor);
        assert!(old.is_some(), "{name} is no part of the state");
    }
    let (rates, momenta) = (fixture["lr"].values(), fixture["m"].values());
    let losses = fixture["loss"].values();
    for t in 0..5 {
        let mut inputs = state;
        inputs.insert("view1".into(), fixture[&format!("x1.{t}")].clone());
        inputs.insert("view2".into(), fixture[&format!("x2.{t}")].clone());
        inputs.insert("lr".into(), Tensor::f32(&[], &[rates[t] as f32]));
        inputs.insert("momentum".into(), Tensor::f32(&[], &[momenta[t] as f32]));
        let step = Tensor {
            shape: Shape::scalar(DType::I32),
            bytes: (t as i32).to_le_bytes().to_vec(),
        };
        inputs.insert("step".into(), step);
        state = program.call(&inputs);
        let loss = state.remove("metrics").unwrap().values()[0];
        let off = (loss / losses[t] - 1.0).abs();
        assert!(off < 1e-5, "step {t}: {loss}, not {}", losses[t]);
    }
    let expected = part(&fixture, "final");
    assert!(expected.len() > 90);
    for (name, mut wanted) in expected {
        let mut found = state.remove(&name).unwrap();
        if name.ends_with("qkv.bias") {
            keys_third(&mut found);
            keys_third(&mut wanted);
        }
        let bound = match name.as_str() {
            name if is_noise(name) => continue,
            // Noise in the norm's bias shifts it; see the fixtures' README.
            name if name.ends_with("_encoder.head.1.running_mean") => 5e-3,
            _ => 1e-5,
        };
        assert_close(&name, &found, &wanted, bound);
    }
    assert!(state.keys().all(|name| name.starts_with("optimizer.")));
}

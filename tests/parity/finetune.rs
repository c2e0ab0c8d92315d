//! Training with labels against timm: mixtures, loss and gradients of the first
//! step, losses and parameters over three, with branches skipped, mixup, CutMix,
//! label smoothing and learning rates by layer; and interpolated positions.

use serde_json::json;
use xla_moco::checkpoint::{Dtype, HostTensor};
use xla_moco::config::RunConfig;
use xla_moco::convert::resample;
use xla_moco::data::rand_augment::{self, Draw, Operation};
use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Shape, Value};
use xla_moco::methods::{self, Pictures, Step, Supervision};
use xla_moco::nn::Variables;
use xla_moco::programs::mixing;
use xla_moco::programs::train_step::{TrainStep, Views, build, initial_state};
use xla_moco::rng::{Purpose, philox};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part, read};
use crate::training::{keys_third, loss_agrees};

/// f32 in another order; each parameter moves by 1e-3 of its norm or more.
const BOUND: f64 = 2e-5;
const STEPS: usize = 3;

fn config() -> RunConfig {
    RunConfig::from_value(json!({
        "batch": 8,
        "model": {
            "arch": "vit", "blocks": 2, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "patch_projection": "learned", "position": "learned", "compute_dtype": "f32",
        },
        "method": {"name": "supervised", "supervised": {
            "classes": 5, "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1, "drop_path": 0.25,
        }},
        "optimizer": {
            "name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1, "layer_decay": 0.5,
            "groups": [
                {"pattern": "*.bias", "weight_decay": 0},
                {"pattern": "*norm*", "weight_decay": 0},
                {"pattern": "*.cls_token", "weight_decay": 0},
                {"pattern": "*.pos_embed", "weight_decay": 0},
            ],
        },
        "schedule": {"total_steps": 3},
    }))
    .unwrap()
}

/// Without what is noise: the keys' part of an attention's bias.
fn agree(what: &str, name: &str, found: &Tensor, wanted: &Tensor) {
    let [mut found, mut wanted] = [found.clone(), wanted.clone()];
    if name.ends_with("attn.qkv.bias") {
        keys_third(&mut found);
        keys_third(&mut wanted);
    }
    assert_close(&format!("{what} {name}"), &found, &wanted, BOUND);
}

#[test]
fn pictures_are_mixed_as_by_timm() {
    let fixture = read("finetune.safetensors");
    let b = Builder::new();
    let x = b.input("x", fixture["x.0"].shape);
    let mix = b.input("mix", Shape::new(DType::F32, &[mixing::MIX]));
    b.output("mixed", mixing::mix(&b, x, mix).unwrap());
    let program = Program::new(&client(), b.finish().unwrap());
    for t in 0..STEPS {
        let of = |name: &str| fixture[&format!("{name}.{t}")].clone();
        let inputs = Tensors::from([("x".into(), of("x")), ("mix".into(), of("mix"))]);
        let found = &program.call(&inputs)["mixed"];
        assert_close(&format!("mixture {t}"), found, &of("mixed"), 1e-6);
    }
}

#[test]
fn loss_and_gradients_are_timms_in_every_lowering() {
    let fixture = read("finetune.safetensors");
    let config = config();
    for lowering in Lowering::ALL {
        let b = Builder::new();
        let specs = methods::specs(&config);
        let variables = Variables::new(specs.iter().map(|spec| {
            let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
            (spec.name.clone(), value)
        }));
        let given = |name: &str| b.input(name, fixture[&format!("{name}.0")].shape);
        let [x, labels, mix, drop_path] = ["x", "labels", "mix", "drop_path"].map(given);
        let wrt: Vec<Value> = specs
            .iter()
            .map(|spec| variables.get(&spec.name).unwrap())
            .collect();
        let forward = methods::forward(&Step {
            b: &b,
            config: &config,
            lowering,
            variables: &variables,
            pictures: Pictures::Whole(mixing::mix(&b, x, mix).unwrap()),
            supervision: Some(Supervision {
                labels,
                share: mixing::share(&b, mix).unwrap(),
                drop_path: Some(drop_path),
            }),
            momentum: b.scalar(DType::F32, 0.0).unwrap(),
        })
        .unwrap();
        b.output("loss", forward.loss);
        for (spec, gradient) in specs.iter().zip(gradients(&b, forward.loss, &wrt).unwrap()) {
            b.output(&spec.name, gradient);
        }
        let mut inputs = part(&fixture, "init");
        for name in ["x", "labels", "mix", "drop_path"] {
            inputs.insert(name.into(), fixture[&format!("{name}.0")].clone());
        }
        let mut found = Program::new(&client(), b.finish().unwrap()).call(&inputs);
        let loss = found.remove("loss").unwrap().values()[0];
        loss_agrees(&format!("{lowering:?}"), loss, fixture["loss"].values()[0]);
        let expected = part(&fixture, "grad");
        assert!(found.keys().eq(expected.keys()));
        for (name, wanted) in &expected {
            agree(
                &format!("{lowering:?}: gradient of"),
                name,
                &found[name],
                wanted,
            );
        }
    }
}

#[test]
fn three_steps_of_fine_tuning_are_timms() {
    let fixture = read("finetune.safetensors");
    let config = config();
    let spec = TrainStep {
        config: &config,
        views: Views::Normalised,
        queue: 0,
        classes: 5,
        lowering: Lowering::Unrolled,
    };
    let program = Program::new(&client(), build(&spec).unwrap().graph);
    let array = |array: xla_moco::programs::HostArray| {
        let (shape, bytes) = (array.shape, array.data);
        (array.name, Tensor { shape, bytes })
    };
    let mut state: Tensors = initial_state(&spec).into_iter().map(array).collect();
    let start = part(&fixture, "init");
    for (name, tensor) in start {
        let old = state.insert(name.clone(), tensor);
        assert!(old.is_some(), "{name} is no part of the state");
    }
    for t in 0..STEPS {
        let mut inputs = state;
        for (name, own) in [
            ("view1", "x"),
            ("labels", "labels"),
            ("mix", "mix"),
            ("drop_path", "drop_path"),
        ] {
            inputs.insert(name.into(), fixture[&format!("{own}.{t}")].clone());
        }
        let lr = fixture["lr"].values()[t] as f32;
        inputs.insert("lr".into(), Tensor::f32(&[], &[lr]));
        inputs.insert("momentum".into(), Tensor::f32(&[], &[0.0]));
        let step = Tensor {
            shape: Shape::scalar(DType::I32),
            bytes: (t as i32).to_le_bytes().to_vec(),
        };
        inputs.insert("step".into(), step);
        state = program.call(&inputs);
        let loss = state.remove("metrics").unwrap().values()[0];
        loss_agrees(&format!("step {t}"), loss, fixture["loss"].values()[t]);
    }
    for (name, wanted) in &part(&fixture, "final") {
        agree("final", name, &state[name], wanted);
    }
}

#[test]
fn positions_are_interpolated_as_by_pytorch() {
    let fixture = read("finetune.safetensors");
    let tensor = |side: usize| {
        let tensor = &fixture[&format!("positions.{side}")];
        HostTensor {
            name: "pos_embed".into(),
            dtype: Dtype::F32,
            shape: tensor.shape.dims().to_vec(),
            data: tensor.bytes.clone(),
        }
    };
    for side in [3, 8] {
        let found = resample(&tensor(5), 1 + side * side).unwrap();
        let wanted = &fixture[&format!("positions.{side}")];
        let found = Tensor {
            shape: Shape::new(DType::F32, &found.shape),
            bytes: found.data,
        };
        assert_close(&format!("{side} x {side}"), &found, wanted, 1e-6);
    }
}

/// What is in a rectangle becomes noise, and nothing else changes; the noise is
/// the host generator's, by Box and Muller.
#[test]
fn rectangles_are_erased_by_normal_noise() {
    let (batch, side, seed, step) = (2, 5, 0x1234_5678_9abc_u64, 3_u32);
    let b = Builder::new();
    let shape = Shape::new(DType::F32, &[batch, 3, side, side]);
    let x = b.input("x", shape);
    let boxes = b.input("boxes", Shape::new(DType::F32, &[batch, 4]));
    let at = b.input("step", Shape::scalar(DType::I32));
    let noise = mixing::normal(&b, x, seed, at).unwrap();
    b.output("y", mixing::erase(&b, x, boxes, noise).unwrap());
    let values: Vec<f32> = (0..shape.len()).map(|i| i as f32).collect();
    let inputs = Tensors::from([
        ("x".into(), Tensor::f32(shape.dims(), &values)),
        // Rows 1 and 2, columns 0 to 3 of the first picture.
        (
            "boxes".into(),
            Tensor::f32(&[batch, 4], &[1.0, 3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]),
        ),
        (
            "step".into(),
            Tensor {
                shape: Shape::scalar(DType::I32),
                bytes: step.to_le_bytes().to_vec(),
            },
        ),
    ]);
    let found = Program::new(&client(), b.finish().unwrap()).call(&inputs)["y"].values();
    let key = [seed as u32, (seed >> 32) as u32];
    let uniform = |bits: u32| f64::from(bits >> 8) / f64::from(1 << 24);
    for (i, (found, old)) in found.iter().zip(&values).enumerate() {
        let (row, place) = (i / (3 * side * side), i % (3 * side * side));
        let (line, column) = (place % (side * side) / side, place % side);
        let erased = row == 0 && (1..3).contains(&line) && column < 4;
        if !erased {
            assert_eq!(*found, f64::from(*old), "{i}");
            continue;
        }
        let counter = [place as u32, row as u32, step, Purpose::Noise as u32];
        let [u, v, ..] = philox(counter, key).map(uniform);
        let wanted = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        assert!((found - wanted).abs() < 1e-4, "{i}: {found}, not {wanted}");
    }
}

/// Every operation at several magnitudes and both ways, to the last bit of what
/// Pillow makes of an 8-bit picture.
#[test]
fn operations_of_rand_augment_are_pillows() {
    let fixture = read("rand_augment.safetensors");
    let (side, fill) = (20, [124, 116, 104]);
    assert_eq!(rand_augment::fill([0.485, 0.456, 0.406]), fill);
    let mut compared = 0;
    for (index, operation) in Operation::ALL.into_iter().enumerate() {
        for (draw, wanted) in part(&fixture, &index.to_string()) {
            let (magnitude, negative) = draw.rsplit_once('.').unwrap();
            let draw = Draw {
                operation,
                magnitude: magnitude.parse().unwrap(),
                negative: negative == "1",
            };
            let mut picture = fixture["picture"].bytes.clone();
            rand_augment::apply(&mut picture, side, fill, &draw);
            let off = picture.iter().zip(&wanted.bytes);
            let off = off.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert_eq!(off, 0, "{draw:?}");
            compared += 1;
        }
    }
    // Pillow refuses to keep no bit at all.
    assert_eq!(compared, 15 * 5 - 1);
}

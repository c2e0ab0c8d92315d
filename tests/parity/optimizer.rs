//! Optimizers and schedules.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::{Builder, DType, Shape};
use xla_moco::optim::{self, Parameter};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part, read};

fn config(set: Json) -> RunConfig {
    RunConfig::from_value(set).unwrap()
}

/// Six steps of four parameters, named p0 to p3, against a fixture.
fn six_steps(fixture: &Tensors, rule: Json, slots: &[(&str, &str)]) {
    let config = config(json!({
        "batch": 8,
        "model": {"arch": "vit_small"},
        "optimizer": rule,
        "schedule": {"total_steps": 6, "warmup_steps": 0},
    }));
    let names: Vec<&str> = slots.iter().map(|(ours, _)| *ours).collect();
    assert_eq!(optim::slots(&config.optimizer), names);
    let b = Builder::new();
    let lr = b.input("lr", Shape::scalar(DType::F32));
    let step = b.input("step", Shape::scalar(DType::I32));
    let parameters: Vec<Parameter> = (0..4)
        .map(|i| {
            let shape = fixture[&format!("init.{i}")].shape;
            let slot = |name: &&str| b.input(format!("{name}{i}"), shape);
            Parameter {
                name: format!("p{i}"),
                value: b.input(format!("p{i}"), shape),
                gradient: b.input(format!("g{i}"), shape),
                slots: names.iter().map(slot).collect(),
                lr_scale: 1.0,
                held: None,
            }
        })
        .collect();
    let update = optim::update(&b, &config.optimizer, &parameters, lr, step).unwrap();
    for (i, (value, new)) in update.parameters.into_iter().enumerate() {
        b.output(format!("p{i}"), value);
        for (name, slot) in names.iter().zip(new) {
            b.output(format!("{name}{i}"), slot);
        }
    }
    b.output("norm", update.gradient_norm);
    let program = Program::new(&client(), b.finish().unwrap());
    let mut state = Tensors::new();
    for i in 0..4 {
        let init = &fixture[&format!("init.{i}")];
        state.insert(format!("p{i}"), init.clone());
        for name in &names {
            let bytes = vec![0; init.bytes.len()];
            let shape = init.shape;
            state.insert(format!("{name}{i}"), Tensor { shape, bytes });
        }
    }
    let rates = fixture["lr"].values();
    for t in 0..6i32 {
        let mut inputs = state.clone();
        inputs.insert("lr".into(), Tensor::f32(&[], &[rates[t as usize] as f32]));
        let step = Tensor {
            shape: Shape::scalar(DType::I32),
            bytes: t.to_le_bytes().to_vec(),
        };
        inputs.insert("step".into(), step);
        let mut squares = 0.0;
        for i in 0..4 {
            let gradient = fixture[&format!("grad.{i}.{t}")].clone();
            squares += gradient.values().iter().map(|g| g * g).sum::<f64>();
            inputs.insert(format!("g{i}"), gradient);
        }
        state = program.call(&inputs);
        let norm = state.remove("norm").unwrap().values()[0];
        assert!((norm - squares.sqrt()).abs() <= 1e-6 * squares.sqrt());
        for i in 0..4 {
            let name = format!("param.{i}.{t}");
            assert_close(&name, &state[&format!("p{i}")], &fixture[&name], 1e-6);
        }
    }
    for i in 0..4 {
        for (ours, theirs) in slots {
            let wanted = &fixture[&format!("{theirs}.{i}")];
            assert_close(theirs, &state[&format!("{ours}{i}")], wanted, 1e-6);
        }
    }
}

const MOMENTS: [(&str, &str); 2] = [("exp_avg", "m"), ("exp_avg_sq", "v")];

#[test]
fn adamw_over_six_steps() {
    let rule = json!({"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1});
    six_steps(&read("adamw.safetensors"), rule, &MOMENTS);
}

#[test]
fn lamb_over_six_steps() {
    let rule = json!({"name": "lamb", "base_lr": 1e-3, "weight_decay": 1e-3});
    six_steps(&read("lamb.safetensors"), rule, &MOMENTS);
}

#[test]
fn lars_over_six_steps() {
    let rule = json!({"name": "lars", "base_lr": 1e-3, "weight_decay": 1.5e-2});
    six_steps(&read("lars.safetensors"), rule, &[("mu", "mu")]);
}

#[test]
fn sgd_over_six_steps() {
    let rule = json!({"name": "sgd", "base_lr": 1e-3, "weight_decay": 1e-2});
    six_steps(
        &read("sgd.safetensors"),
        rule,
        &[("momentum_buffer", "buf")],
    );
}

/// Every rule on gradients that are clipped in a group and then all together;
/// the norm it tells is that before.
#[test]
fn clipping_over_six_steps() {
    let fixture = read("clip.safetensors");
    let mu: &[_] = &[("mu", "mu")];
    for (name, weight_decay, slots) in [
        ("adamw", 0.1, MOMENTS.as_slice()),
        ("lamb", 1e-3, &MOMENTS),
        ("lars", 1.5e-2, mu),
        ("sgd", 1e-2, &[("momentum_buffer", "buf")]),
    ] {
        let rule = json!({
            "name": name, "base_lr": 1e-3, "weight_decay": weight_decay, "clip_norm": 2,
            "groups": [{"pattern": "p1", "clip_norm": 0.5}],
        });
        six_steps(&part(&fixture, name), rule, slots);
    }
}

#[test]
fn a_group_that_holds_nothing_is_named() {
    let config = config(json!({
        "batch": 8,
        "model": {"arch": "vit_small"},
        "optimizer": {"base_lr": 1e-3, "weight_decay": 0, "groups": [{"pattern": "patch.*"}]},
        "schedule": {"total_steps": 6},
    }));
    let b = Builder::new();
    let scalar = b.input("lr", Shape::scalar(DType::F32));
    let error = optim::update(&b, &config.optimizer, &[], scalar, scalar).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`optimizer.groups[0].pattern` \"patch.*\""),
        "{text}"
    );
}

/// A number of the schedules' file, which has more digits than f64 needs.
fn number(entry: &Json, key: &str) -> f64 {
    entry[key].as_f64().unwrap()
}

fn points(entry: &Json) -> Vec<(u64, f64)> {
    let points = entry["points"].as_array().unwrap();
    assert!(!points.is_empty());
    let point = |p: &Json| (p[0].as_u64().unwrap(), p[1].as_f64().unwrap());
    points.iter().map(point).collect()
}

#[test]
fn schedules() {
    let text = include_str!("../fixtures/parity/schedules.json");
    let fixture: Json = serde_json::from_str(text).unwrap();
    for entry in fixture["learning_rate"].as_array().unwrap() {
        let config = config(json!({
            "batch": entry["batch"],
            "model": {"arch": "vit_small"},
            "method": {"name": "moco_v3"},
            "optimizer": {"name": "adamw", "base_lr": entry["base_lr"], "weight_decay": 0.1},
            "schedule": {"total_steps": entry["total_steps"], "warmup_steps": entry["warmup_steps"]},
        }));
        let schedule = config.schedule.resolve(1).unwrap();
        for (step, wanted) in points(entry) {
            let found = schedule.lr(config.peak_lr(), step);
            let bound = 1e-12 * config.peak_lr();
            assert!(
                (found - wanted).abs() <= bound,
                "step {step}: {found}, not {wanted}"
            );
        }
    }
    for entry in fixture["momentum"].as_array().unwrap() {
        let start = number(entry, "start");
        let config = config(json!({
            "batch": 8,
            "model": {"arch": "vit_small"},
            "method": {"name": "moco_v3", "momentum": start},
            "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"total_steps": entry["total_steps"], "warmup_steps": 0},
        }));
        let schedule = config.schedule.resolve(1).unwrap();
        for (step, wanted) in points(entry) {
            let found = schedule.momentum(&config.method, step);
            assert!(
                (found - wanted).abs() <= 1e-14,
                "step {step}: {found}, not {wanted}"
            );
        }
    }
}

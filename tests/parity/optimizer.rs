//! AdamW and the schedules.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::{Builder, DType, Shape};
use xla_moco::optim::adamw::Step;

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, read};

fn config(set: Json) -> RunConfig {
    RunConfig::from_value(set).unwrap()
}

#[test]
fn adamw_over_six_steps() {
    let fixture = read("adamw.safetensors");
    let config = config(json!({
        "batch": 8,
        "model": {"arch": "vit_small"},
        "method": {"name": "moco_v3"},
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": 6, "warmup_steps": 0},
    }));
    let b = Builder::new();
    let lr = b.input("lr", Shape::scalar(DType::F32));
    let t = b.input("step", Shape::scalar(DType::I32));
    let step = Step::new(&b, &config.optimizer, lr, t).unwrap();
    for i in 0..4 {
        let shape = fixture[&format!("init.{i}")].shape;
        let [p, g, m, v] = ["p", "g", "m", "v"].map(|name| b.input(format!("{name}{i}"), shape));
        let (p, [m, v]) = step.update(&b, &config.optimizer, p, g, [m, v]).unwrap();
        for (name, value) in [("p", p), ("m", m), ("v", v)] {
            b.output(format!("{name}{i}"), value);
        }
    }
    let program = Program::new(&client(), b.finish().unwrap());
    let zeros = |tensor: &Tensor| Tensor {
        bytes: vec![0; tensor.bytes.len()],
        ..tensor.clone()
    };
    let mut state = Tensors::new();
    for i in 0..4 {
        let init = &fixture[&format!("init.{i}")];
        state.insert(format!("p{i}"), init.clone());
        state.insert(format!("m{i}"), zeros(init));
        state.insert(format!("v{i}"), zeros(init));
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
        for i in 0..4 {
            inputs.insert(format!("g{i}"), fixture[&format!("grad.{i}.{t}")].clone());
        }
        state = program.call(&inputs);
        for i in 0..4 {
            let name = format!("param.{i}.{t}");
            assert_close(&name, &state[&format!("p{i}")], &fixture[&name], 1e-6);
        }
    }
    for i in 0..4 {
        for name in ["m", "v"] {
            let wanted = &fixture[&format!("{name}.{i}")];
            assert_close(name, &state[&format!("{name}{i}")], wanted, 1e-6);
        }
    }
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

//! Optimizers on numbers small enough to be worked out by hand, with the
//! equations of their papers.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::ops::Comparison;
use xla_moco::graph::{Builder, DType, Shape};
use xla_moco::optim::{self, Parameter};

use crate::fixture::{Program, Tensor, Tensors, client};

const PARAMETERS: [(&str, &[usize]); 2] = [("a.weight", &[1, 2]), ("a.bias", &[2])];

/// Steps at a learning rate of 0.5 from (3, 4), of norm 5, as a matrix and as a
/// vector, which have the same gradient in each step: the two after the last.
/// If they are held, nothing may move.
fn steps(rule: Json, gradients: &[[f32; 2]], held: bool) -> [Vec<f64>; 2] {
    let config = RunConfig::from_value(json!({
        "batch": 8,
        "model": {"arch": "vit_small"},
        "optimizer": rule,
        "schedule": {"total_steps": 6},
    }));
    let config = config.unwrap();
    let slots = optim::slots(&config.optimizer);
    let b = Builder::new();
    let lr = b.input("lr", Shape::scalar(DType::F32));
    let step = b.input("step", Shape::scalar(DType::I32));
    let held_input = b.input("held", Shape::scalar(DType::F32));
    let zero = b.full_like(held_input, 0.0).unwrap();
    let parameters = PARAMETERS.map(|(name, dims)| {
        let shape = Shape::new(DType::F32, dims);
        let slot = |slot: &&str| b.input(format!("{name}.{slot}"), shape);
        Parameter {
            name: name.into(),
            value: b.input(name, shape),
            gradient: b.input(format!("grad.{name}"), shape),
            slots: slots.iter().map(slot).collect(),
            lr_scale: 1.0,
            held: Some(b.compare(Comparison::Gt, held_input, zero).unwrap()),
        }
    });
    let update = optim::update(&b, &config.optimizer, &parameters, lr, step).unwrap();
    for (parameter, (value, new)) in parameters.iter().zip(update.parameters) {
        b.output(&parameter.name, value);
        for (slot, new) in slots.iter().zip(new) {
            b.output(format!("{}.{slot}", parameter.name), new);
        }
    }
    let program = Program::new(&client(), b.finish().unwrap());

    let mut state = Tensors::new();
    for (name, dims) in PARAMETERS {
        state.insert(name.into(), Tensor::f32(dims, &[3.0, 4.0]));
        for slot in slots {
            state.insert(format!("{name}.{slot}"), Tensor::f32(dims, &[0.0, 0.0]));
        }
    }
    for (t, gradient) in gradients.iter().enumerate() {
        let mut inputs = state;
        for (name, dims) in PARAMETERS {
            inputs.insert(format!("grad.{name}"), Tensor::f32(dims, gradient));
        }
        let held = if held { 1.0 } else { 0.0 };
        inputs.insert("held".into(), Tensor::f32(&[], &[held]));
        inputs.insert("lr".into(), Tensor::f32(&[], &[0.5]));
        let step = Tensor {
            shape: Shape::scalar(DType::I32),
            bytes: (t as i32).to_le_bytes().to_vec(),
        };
        inputs.insert("step".into(), step);
        state = program.call(&inputs);
    }
    if held {
        for (name, _) in PARAMETERS {
            for slot in slots {
                assert_eq!(state[&format!("{name}.{slot}")].values(), [0.0, 0.0]);
            }
        }
    }
    PARAMETERS.map(|(name, _)| state[name].values())
}

fn near(found: &[f64], wanted: [f64; 2]) {
    let off = found.iter().zip(wanted).map(|(f, w)| (f - w).abs());
    assert!(off.fold(0.0, f64::max) < 2e-5, "{found:?}, not {wanted:?}");
}

/// You et al. 2020, Alg. 2, with phi the identity and the bias correction of
/// their code:
///
/// ```text
/// m = .9 m + .1 g        m^ = m / (1 - .9^t)
/// v = .999 v + .001 g^2  v^ = v / (1 - .999^t)
/// u = m^ / (sqrt(v^) + eps) + wd p
/// p = p - lr (|p| / |u|) u
/// ```
#[test]
fn lamb() {
    let rule = json!({"name": "lamb", "base_lr": 1e-3, "weight_decay": 0.1});
    // First m^ = g and v^ = g^2, so u = (1, -1) + (.3, .4) = (1.3, -.6), of norm
    // sqrt(2.05); the step is 0.5 * 5 / sqrt(2.05) u. A vector has neither decay
    // nor ratio: 0.5 (1, -1).
    let [weight, bias] = steps(rule.clone(), &[[2.0, -8.0]], false);
    let scale = 2.5 / 2.05f64.sqrt();
    near(&weight, [3.0 - scale * 1.3, 4.0 + scale * 0.6]);
    near(&bias, [2.5, 4.5]);
    // Then p = (.7301015, 5.0476454), of norm 5.1001738, and
    // m^ = (.18, .08) / .19 = (.9473684, .4210526),
    // v^ = (.003996, .127936) / .001999 = (1.9989995, 64),
    // so m^ / (sqrt(v^) + eps) = (.6700578, .0526316), u = (.7430679, .5573961)
    // of norm .9288920; the step is 0.5 * 5.1001738 / .9288920 u = 2.7452995 u.
    let [weight, bias] = steps(rule.clone(), &[[2.0, -8.0], [0.0, 8.0]], false);
    near(&weight, [-1.3098426, 3.5174261]);
    near(&bias, [2.5 - 0.5 * 0.6700578, 4.5 - 0.5 * 0.0526316]);
    let [weight, bias] = steps(rule, &[[2.0, -8.0]], true);
    assert_eq!((weight, bias), (vec![3.0, 4.0], vec![3.0, 4.0]));
}

/// You, Gitman and Ginsburg 2017, Alg. 1, with trust coefficient c:
///
/// ```text
/// ratio = c |p| / (|g| + wd |p|)
/// v = .9 v + lr ratio (g + wd p)
/// p = p - v
/// ```
///
/// The code of MoCo v3 and BYOL, which this program follows, has |g + wd p| in
/// the ratio and the rate outside the average: at one rate, and where g and p
/// have one direction, the same numbers.
#[test]
fn lars() {
    let rule = json!({"name": "lars", "base_lr": 1e-3, "weight_decay": 0.1});
    // |g| + wd |p| = .5 + .5, ratio .001 * 5 / 1, g + wd p = (.6, .8). A vector
    // has neither: its step is 0.5 g.
    let [weight, bias] = steps(rule, &[[0.3, 0.4]], false);
    near(&weight, [3.0 - 0.5 * 0.005 * 0.6, 4.0 - 0.5 * 0.005 * 0.8]);
    near(&bias, [2.85, 3.8]);
    // With c = .1 the ratio is .5 first, v = (.15, .2), p = (2.85, 3.8) of norm
    // 4.75. Then |g| + wd |p| = .5 + .475, ratio .475 / .975, g + wd p =
    // (.585, .78), v = .9 (.15, .2) + .5 (.285, .38) = (.2775, .37). The vector's
    // v is .5 (.3, .4) first and then 1.9 times as long.
    let rule = |c: f64| json!({"name": "lars", "base_lr": 1e-3, "weight_decay": 0.1, "trust_coefficient": c});
    let [weight, bias] = steps(rule(0.1), &[[0.3, 0.4], [0.3, 0.4]], false);
    near(&weight, [2.85 - 0.2775, 3.8 - 0.37]);
    near(&bias, [2.85 - 0.285, 3.8 - 0.38]);
    // A gradient across p, where the codes' |g + wd p| = |(.7, .1)| = sqrt(.5)
    // and not the paper's .5 + .5.
    let [weight, _] = steps(rule(0.1), &[[0.4, -0.3]], false);
    let ratio = 0.1 * 5.0 / 0.5f64.sqrt();
    near(&weight, [3.0 - 0.5 * ratio * 0.7, 4.0 - 0.5 * ratio * 0.1]);
    // A gradient that decay cancels: nothing to trust, nothing to do.
    let rule = json!({"name": "lars", "base_lr": 1e-3, "weight_decay": 0.5});
    near(&steps(rule, &[[-1.5, -2.0]], false)[0], [3.0, 4.0]);
}

#[test]
fn clipping_and_groups() {
    // Global clipping: the norm of both (3, 4) is sqrt(50), which becomes 1;
    // groups: the bias's gradient of norm 5 becomes 2, and then p - 0.5 lr_scale g.
    let sgd = json!({"name": "sgd", "base_lr": 1e-3, "weight_decay": 0, "clip_norm": 1});
    let [weight, _] = steps(sgd, &[[3.0, 4.0]], false);
    near(
        &weight,
        [3.0 - 1.5 / 50f64.sqrt(), 4.0 - 2.0 / 50f64.sqrt()],
    );
    let sgd = json!({"name": "sgd", "base_lr": 1e-3, "weight_decay": 0.1, "groups": [
        {"pattern": "*.bias", "clip_norm": 2, "lr_scale": 0.5, "weight_decay": 0},
    ]});
    let [weight, bias] = steps(sgd, &[[3.0, 4.0]], false);
    near(&weight, [3.0 - 0.5 * 3.3, 4.0 - 0.5 * 4.4]);
    near(&bias, [3.0 - 0.25 * 1.2, 4.0 - 0.25 * 1.6]);
}

//! Proof 2: 1, 2, 4 and 8 devices come to the same losses and state.

use std::sync::OnceLock;

use serde_json::json;
use xla_moco::graph::block::Lowering;

use crate::run::{Arrays, Runner, batch, config, f32s, state, step};

/// What ten steps come to.
pub struct Trained {
    pub losses: Vec<f64>,
    pub state: Arrays,
}

/// Ten steps on one device, trained once for all tests.
pub fn on_one_device() -> &'static Trained {
    static ONE: OnceLock<Trained> = OnceLock::new();
    ONE.get_or_init(|| train(1, false, 10))
}

pub fn train(devices: usize, zero1: bool, steps: usize) -> Trained {
    let sharding = if zero1 { "zero1" } else { "replicated" };
    let config = config(devices, &[("optimizer_sharding", json!(sharding))]);
    let step = step(&config, Lowering::Unrolled);
    let runner = Runner::of_step(&step);
    let mut arrays = state(&step);
    let mut losses = Vec::new();
    for number in 0..steps {
        arrays.extend(batch(number));
        arrays = runner.call(&arrays);
        let (_, metrics) = arrays.remove("metrics").unwrap();
        losses.push(f32s(&metrics)[0]);
    }
    Trained {
        losses,
        state: arrays,
    }
}

pub fn relative(found: f64, expected: f64) -> f64 {
    (found / expected - 1.0).abs()
}

/// |found - expected| / |expected|, norms over all elements; the keys' third of
/// a bias of queries, keys and values left out: its gradient is rounding noise,
/// which Adam makes steps of, and no result depends on it.
fn distance(name: &str, found: &[u8], expected: &[u8]) -> f64 {
    let (found, expected) = (f32s(found), f32s(expected));
    let third = expected.len() / 3;
    let counts = |i: usize| !name.ends_with("qkv.bias") || i / third != 1;
    let pairs = found.iter().zip(&expected).enumerate();
    let pairs = pairs.filter(|(i, _)| counts(*i)).map(|(_, pair)| pair);
    let (difference, norm) = pairs.fold((0.0, 0.0), |(d, n), (f, e)| {
        (d + (f - e).powi(2), n + e.powi(2))
    });
    (difference / f64::max(norm, 1e-30)).sqrt()
}

fn assert_alike(what: &str, found: &Trained, expected: &Trained) {
    for (i, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
        let bound = if i == 0 { 1e-5 } else { 1e-3 };
        let off = relative(*found, *expected);
        assert!(
            off <= bound,
            "{what}: step {}: {found}, not {expected}",
            i + 1
        );
    }
    assert_eq!(found.state.len(), expected.state.len());
    for (name, (shape, expected)) in &expected.state {
        // A shift of the features before BN, which takes it out again: noise,
        // as above, and the running mean follows it.
        let noise = name.contains("_encoder.norm.bias")
            || name.ends_with("_encoder.head.1.running_mean")
            || name.starts_with("optimizer.") && name.ends_with("qkv.bias");
        if noise {
            continue;
        }
        let (found_shape, found) = &found.state[name];
        assert_eq!(found_shape, shape, "{what}: {name}");
        let off = distance(name, found, expected);
        assert!(off <= 1e-2, "{what}: {name} is {off:e} off");
    }
}

#[test]
fn any_number_of_devices_comes_to_the_same() {
    let one = on_one_device();
    assert!(one.losses[9] < one.losses[0], "{:?}", one.losses);
    for devices in [2, 4, 8] {
        let found = train(devices, false, 10);
        assert_alike(&format!("{devices} devices"), &found, one);
    }
}

#[test]
fn a_split_optimizer_state_changes_nothing() {
    let found = train(4, true, 10);
    assert_alike("zero1 on 4 devices", &found, on_one_device());
}

#[test]
fn zero1_holds_a_part_of_the_moments_on_each_device() {
    for (zero1, share) in [("replicated", 1), ("zero1", 4)] {
        let config = config(4, &[("optimizer_sharding", json!(zero1))]);
        let runner = Runner::of_step(&step(&config, Lowering::Unrolled));
        for (name, elements) in [
            ("base_encoder.blocks.0.mlp.fc1.weight", 96 * 24),
            // [1, 1, 24]: along its last axis.
            ("base_encoder.cls_token", 24),
        ] {
            let whole = 4 * elements;
            for moment in ["exp_avg", "exp_avg_sq"] {
                let held = runner.held_bytes(&format!("optimizer.{moment}.{name}"));
                assert_eq!(held, whole / share, "{zero1}: {moment} of {name}");
            }
            assert_eq!(runner.held_bytes(name), whole, "{zero1}: {name}");
        }
    }
}

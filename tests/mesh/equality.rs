//! Proof 2: 1, 2, 4 and 8 devices come to the same losses and state.

use std::sync::OnceLock;

use serde_json::json;
use xla_moco::graph::block::Lowering;

use crate::run::{Arrays, Runner, batch, config, f32s, state, step};

/// What ten steps come to.
pub struct Trained {
    pub losses: Vec<f64>,
    /// The state after the first step, and after the last.
    pub first: Arrays,
    pub last: Arrays,
}

/// Ten steps on one device, trained once for all tests.
pub fn on_one_device() -> &'static Trained {
    static ONE: OnceLock<Trained> = OnceLock::new();
    ONE.get_or_init(|| train(1, false))
}

pub fn train(devices: usize, zero1: bool) -> Trained {
    let sharding = if zero1 { "zero1" } else { "replicated" };
    let config = config(devices, &[("optimizer_sharding", json!(sharding))]);
    let step = step(&config, Lowering::Unrolled);
    let runner = Runner::of_step(&step);
    let mut arrays = state(&step);
    let (mut losses, mut first) = (Vec::new(), Arrays::new());
    for number in 0..10 {
        arrays.extend(batch(number));
        arrays = runner.call(&arrays);
        let (_, metrics) = arrays.remove("metrics").unwrap();
        losses.push(f32s(&metrics)[0]);
        if number == 0 {
            first = arrays.clone();
        }
    }
    Trained {
        losses,
        first,
        last: arrays,
    }
}

pub fn relative(found: f64, expected: f64) -> f64 {
    (found / expected - 1.0).abs()
}

/// |found - expected| / |expected|, norms over all elements; the keys' third of
/// a bias of queries, keys and values left out: its gradient is rounding noise,
/// which Adam makes steps of, and no result depends on it.
pub fn distance(name: &str, found: &[u8], expected: &[u8]) -> f64 {
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

/// What is zero in theory. A shift of the features before BN, which takes it
/// out again, has no gradient; the running mean follows it. The predictor's
/// first mean is one of projections, which the last BN has centred.
pub fn is_noise(name: &str) -> bool {
    name.contains("_encoder.norm.bias")
        || name.ends_with("_encoder.head.1.running_mean")
        || name == "predictor.1.running_mean"
}

/// `bound` gives the bound for a tensor, none for those that are not held.
fn assert_states_alike(
    what: &str,
    found: &Arrays,
    expected: &Arrays,
    bound: impl Fn(&str) -> Option<f64>,
) {
    assert_eq!(found.len(), expected.len());
    for (name, (shape, expected)) in expected {
        let Some(bound) = bound(name).filter(|_| !is_noise(name)) else {
            continue;
        };
        let (found_shape, found) = &found[name];
        assert_eq!(found_shape, shape, "{what}: {name}");
        let off = distance(name, found, expected);
        assert!(off <= bound, "{what}: {name} is {off:e} off");
    }
}

/// Gradients, as the moments after one step have them, and BN statistics agree
/// to rounding. Parameters less so: Adam's first step is one of full size
/// however small a gradient is, so where it is noise, noise decides the sign.
fn assert_first_steps_alike(what: &str, found: &Trained, expected: &Trained) {
    let off = relative(found.losses[0], expected.losses[0]);
    assert!(off <= 1e-5, "{what}: the first loss is {off:e} off");
    assert_states_alike(what, &found.first, &expected.first, |name| {
        let held = name.starts_with("optimizer.") || name.contains(".running_");
        Some(if held { 2e-5 } else { 2e-3 })
    });
}

/// By then those steps have spread.
fn assert_tenth_steps_alike(what: &str, found: &Trained, expected: &Trained) {
    for (i, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
        let off = relative(*found, *expected);
        assert!(off <= 1e-3, "{what}: loss {} is {off:e} off", i + 1);
    }
    assert_states_alike(what, &found.last, &expected.last, |name| {
        (!name.starts_with("optimizer.")).then_some(1e-2)
    });
}

fn assert_alike(devices: usize, zero1: bool) {
    let what = format!("{devices} devices, zero1 {zero1}");
    let (found, one) = (train(devices, zero1), on_one_device());
    assert_first_steps_alike(&what, &found, one);
    assert_tenth_steps_alike(&what, &found, one);
}

#[test]
fn any_number_of_devices_comes_to_the_same() {
    let losses = &on_one_device().losses;
    assert!(losses[9] < losses[0], "{losses:?}");
    for devices in [2, 4, 8] {
        assert_alike(devices, false);
    }
}

#[test]
fn a_split_optimizer_state_changes_nothing() {
    assert_alike(4, true);
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

//! Proof 1: the collectives of a step right after partitioning, by scope.

use std::collections::BTreeMap;

use serde_json::json;
use xla_moco::graph::block::Lowering;
use xla_moco::plan::{Collective, collectives, partitioned};

use crate::run::{BATCH, HIDDEN, OUT, config, hlo, step};

fn of(devices: usize, lowering: Lowering) -> Vec<Collective> {
    let config = config(devices, &[]);
    let hlo = hlo(&step(&config, lowering));
    collectives(partitioned(&hlo).expect("the plugin dumps the pass"))
}

/// The forward pass' all-reduces in each BN layer, as (scope, bytes).
fn statistics(found: &[Collective]) -> BTreeMap<&str, Vec<u64>> {
    let mut layers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for collective in found {
        let scope = collective.scope.trim_end_matches("/reduce");
        let layer = scope
            .split_once("/head/")
            .map_or(scope.strip_prefix("predictor/"), |(_, layer)| Some(layer));
        let is_norm = layer.is_some_and(|layer| ["1", "4", "7"].contains(&layer));
        if is_norm && !scope.starts_with("grad/") {
            assert_eq!(collective.kind, "all-reduce", "{scope}");
            layers.entry(scope).or_default().push(collective.bytes);
        }
    }
    layers
}

/// Mean and variance, of each of the two views by itself, for each channel;
/// the variance needs the mean, so they cannot be one.
#[test]
fn each_bn_layer_reduces_its_mean_and_its_variance_once() {
    let (hidden, out) = (2 * HIDDEN as u64 * 4, 2 * OUT as u64 * 4);
    let expected = BTreeMap::from([
        ("base_encoder/head/1", vec![hidden; 2]),
        ("base_encoder/head/4", vec![hidden; 2]),
        ("base_encoder/head/7", vec![out; 2]),
        ("momentum_encoder/head/1", vec![hidden; 2]),
        ("momentum_encoder/head/4", vec![hidden; 2]),
        ("momentum_encoder/head/7", vec![out; 2]),
        ("predictor/1", vec![hidden; 2]),
        ("predictor/4", vec![out; 2]),
    ]);
    // The recomputation of a block does not repeat them.
    for lowering in [Lowering::Unrolled, Lowering::RematMlp, Lowering::Remat] {
        let found = of(4, lowering);
        assert_eq!(statistics(&found), expected, "{lowering:?}");
        the_loss_gathers_all_keys_and_nothing_else(&found);
    }
}

fn the_loss_gathers_all_keys_and_nothing_else(found: &[Collective]) {
    let gathered = found.iter().filter(|c| c.kind != "all-reduce");
    let facts: Vec<_> = gathered
        .map(|c| (c.kind, c.bytes, c.scope.split('/').next().unwrap()))
        .collect();
    let keys = (BATCH * OUT * 4) as u64;
    assert_eq!(facts, [("all-gather", keys, "loss"); 2]);
}

/// In the body BN is recomputed from statistics that are kept: each layer
/// reduces its mean and its variance once, whatever is recomputed, and their
/// derivatives once.
#[test]
fn a_body_with_bn_reduces_its_statistics_once_also_where_it_is_recomputed() {
    let model = json!({
        "arch": "vit", "blocks": 2, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
        "compute_dtype": "f32", "mlp_norm": "batch",
    });
    let config = config(4, &[("model", model)]);
    let reduced = |lowering: Lowering| {
        let hlo = hlo(&step(&config, lowering));
        let found = collectives(partitioned(&hlo).expect("the plugin dumps the pass"));
        let mut layers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for collective in found.iter().filter(|c| c.scope.contains("/norm2/")) {
            assert_eq!(collective.kind, "all-reduce");
            // What is recomputed has a scope of its own inside.
            let layer = collective.scope.split("/norm2/").next().unwrap();
            let layer = layer.trim_end_matches("/grad");
            layers
                .entry(layer.to_owned())
                .or_default()
                .push(collective.bytes);
        }
        layers
    };
    let kept = reduced(Lowering::Unrolled);
    // Of each view by itself, for 24 channels.
    let statistics = vec![2 * 24 * 4; 2];
    for encoder in ["base_encoder", "momentum_encoder"] {
        for block in 0..2 {
            assert_eq!(kept[&format!("{encoder}/blocks.{block}")], statistics);
        }
    }
    for lowering in [Lowering::RematMlp, Lowering::Remat] {
        assert_eq!(reduced(lowering), kept, "{lowering:?}");
    }
}

/// A single device has nobody to talk to.
#[test]
fn one_device_has_no_collectives() {
    let config = config(1, &[]);
    let hlo = hlo(&step(&config, Lowering::Unrolled));
    assert_eq!(collectives(&hlo.after_optimizations), []);
}

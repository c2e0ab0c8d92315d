//! Every method and variant of heads: loss and all gradients of one step, and
//! losses and state over three steps.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;

use crate::fixture::{Tensors, part, read};
use crate::training::{compare, first_gradients, train};

/// f32 arithmetic in another order. Batches of 8 through BN make gradients
/// sensitive: PyTorch in f32 is up to 1.1e-5 off PyTorch in f64.
const BOUND: f64 = 4e-5;
const LOSS_BOUND: f64 = 1e-5;

fn head(layers: usize, norm: &str) -> Json {
    json!({"layers": layers, "hidden": 32, "out": 16, "norm": norm})
}

/// The cases of tools/reference/methods_torch.py as `method` sections.
fn cases() -> Vec<(&'static str, Json)> {
    let swav = |crops: &str, temperature: f64, iterations: usize, queue: usize| {
        json!({
            "name": "swav", "projector": head(3, "none"), "bn_crops": crops,
            "temperature": temperature,
            "swav": {
                "prototypes": 10, "freeze_prototypes_steps": 1, "queue": queue,
                "sinkhorn_iterations": iterations,
            },
        })
    };
    vec![
        (
            "moco_v3_without_predictor",
            json!({"projector": head(3, "all"), "predictor": {"layers": 0}}),
        ),
        (
            "moco_v3_without_norm",
            json!({
                "projector": head(3, "none"), "predictor": head(2, "none"), "loss_scale": "one",
            }),
        ),
        (
            "moco_v3_crops_together",
            json!({
                "projector": head(3, "all"), "predictor": head(2, "all"), "bn_crops": "together",
            }),
        ),
        (
            "simclr",
            json!({"name": "simclr", "projector": head(3, "all"), "temperature": 0.2}),
        ),
        (
            "simclr_other_view",
            json!({
                "name": "simclr", "projector": head(3, "all"), "temperature": 0.3,
                "negatives": "other_view", "bn_crops": "apart",
            }),
        ),
        (
            "byol",
            json!({"name": "byol", "projector": head(3, "hidden"), "predictor": head(2, "hidden")}),
        ),
        (
            "simsiam",
            json!({"name": "simsiam", "projector": head(3, "all"), "predictor": head(2, "hidden")}),
        ),
        ("swav", swav("together", 0.2, 3, 0)),
        ("swav_queue", swav("apart", 0.1, 3, 12)),
        ("swav_softmax", swav("apart", 0.1, 0, 0)),
    ]
}

fn config(method: Json) -> RunConfig {
    RunConfig::from_value(json!({
        "batch": 8,
        "model": {
            "arch": "vit", "blocks": 1, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "compute_dtype": "f32",
        },
        "method": method,
        "optimizer": {"name": "sgd", "base_lr": 1e-3, "weight_decay": 0, "momentum": 0},
        "schedule": {"total_steps": 3},
    }))
    .unwrap()
}

/// The start of a case: its own tensors and the backbone that all have.
fn start(fixture: &Tensors, case: &str) -> Tensors {
    let mut init = part(fixture, "init");
    init.extend(part(fixture, &format!("{case}.init")));
    init
}

fn gradients_agree(fixture: &Tensors, case: &str, config: &RunConfig) {
    let mut found = first_gradients(fixture, config, start(fixture, case), Lowering::Unrolled);
    let loss = found.remove("loss").unwrap().values()[0];
    let wanted = fixture[&format!("{case}.loss")].values()[0];
    assert!(
        (loss / wanted - 1.0).abs() < LOSS_BOUND,
        "{case}: {loss}, not {wanted}"
    );
    let expected = part(fixture, &format!("{case}.grad"));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{case}"
    );
    for (name, wanted) in &expected {
        compare(
            &format!("{case}: gradient of {name}"),
            &found[name],
            wanted,
            BOUND,
        );
    }
}

fn three_steps_agree(fixture: &Tensors, case: &str, config: &RunConfig) {
    let found = train(fixture, config, start(fixture, case), 3);
    let (names, state) = (&found.names, &found.state);
    let losses = fixture[&format!("{case}.loss")].values();
    for (t, metrics) in found.metrics.iter().enumerate() {
        assert_eq!((names.len(), names[0].as_str()), (metrics.len(), "loss"));
        let off = (metrics[0] / losses[t] - 1.0).abs();
        assert!(
            off < LOSS_BOUND,
            "{case}, step {t}: {}, not {}",
            metrics[0],
            losses[t]
        );
        for (name, x) in names.iter().zip(metrics) {
            // SimSiam's loss is a negative cosine, a logit has either sign, and no
            // key may be found yet.
            let may_be_zero = name.ends_with("_logit") || name == "key_found" || name == "loss";
            let sound = x.is_finite() && (may_be_zero || *x > 0.0);
            assert!(sound, "{case}, step {t}: {name} is {x}");
        }
    }
    let expected = part(fixture, &format!("{case}.final"));
    assert!(expected.len() > 6, "{case}");
    for (name, wanted) in &expected {
        compare(
            &format!("{case}: final {name}"),
            &state[name],
            wanted,
            BOUND,
        );
    }
}

#[test]
fn every_method_and_variant() {
    let fixture = read("methods.safetensors");
    for (case, method) in cases() {
        let config = config(method);
        gradients_agree(&fixture, case, &config);
        three_steps_agree(&fixture, case, &config);
    }
}

//! Every method and variant of heads: loss and all gradients of one step, and
//! losses and state over three steps.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Shape, Value};
use xla_moco::methods::{self, Step};
use xla_moco::nn::{Role, Variables};
use xla_moco::programs::train_step::{TrainStep, Views, build, initial_state};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part, read};

/// f32 arithmetic in another order. Batches of 8 through BN make gradients
/// sensitive: PyTorch in f32 is up to 1.1e-5 off PyTorch in f64.
const BOUND: f64 = 4e-5;
const LOSS_BOUND: f64 = 1e-5;
/// Norms below this are rounding noise of what is zero in theory.
const NOISE: f64 = 2e-6;

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

fn compare(what: &str, found: &Tensor, wanted: &Tensor, bound: f64) {
    let norm = |t: &Tensor| t.values().iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm(wanted) <= NOISE {
        assert!(norm(found) <= 10.0 * NOISE, "{what}: {:e}", norm(found));
    } else {
        assert_close(what, found, wanted, bound);
    }
}

fn first_gradients(fixture: &Tensors, case: &str, config: &RunConfig) {
    let b = Builder::new();
    let mut inputs = start(fixture, case);
    let specs = methods::specs(config);
    let variables = Variables::new(specs.iter().map(|spec| {
        let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
        (spec.name.clone(), value)
    }));
    let views = ["x1.0", "x2.0"].map(|name| b.input(name, fixture[name].shape));
    let momentum = b.input("m", Shape::scalar(DType::F32));
    methods::prepare(&b, config, &variables).unwrap();
    let trained: Vec<_> = specs.iter().filter(|s| s.role == Role::Trained).collect();
    let wrt: Vec<Value> = trained
        .iter()
        .map(|spec| variables.get(&spec.name).unwrap())
        .collect();
    let forward = methods::forward(&Step {
        b: &b,
        config,
        lowering: Lowering::Unrolled,
        variables: &variables,
        views,
        momentum,
    })
    .unwrap();
    b.output("loss", forward.loss);
    let found = gradients(&b, forward.loss, &wrt).unwrap();
    for (spec, gradient) in trained.iter().zip(found) {
        b.output(&spec.name, gradient);
    }
    for name in ["x1.0", "x2.0"] {
        inputs.insert(name.into(), fixture[name].clone());
    }
    let m = fixture["m"].values()[0] as f32;
    inputs.insert("m".into(), Tensor::f32(&[], &[m]));
    let mut found = Program::new(&client(), b.finish().unwrap()).call(&inputs);

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

fn three_steps(fixture: &Tensors, case: &str, config: &RunConfig) {
    let spec = TrainStep {
        config,
        views: Views::Normalised,
        queue: 0,
        classes: 0,
        lowering: Lowering::Unrolled,
    };
    let program = build(&spec).unwrap();
    let names = program.metrics.clone();
    let program = Program::new(&client(), program.graph);
    let array = |array: xla_moco::programs::HostArray| {
        let (shape, bytes) = (array.shape, array.data);
        (array.name, Tensor { shape, bytes })
    };
    let mut state: Tensors = initial_state(&spec).into_iter().map(array).collect();
    for (name, tensor) in start(fixture, case) {
        let old = state.insert(name.clone(), tensor);
        assert!(old.is_some(), "{case}: {name} is no part of the state");
    }
    let (rates, momenta) = (fixture["lr"].values(), fixture["m"].values());
    let losses = fixture[&format!("{case}.loss")].values();
    for t in 0..3 {
        let mut inputs = state;
        for view in [1, 2] {
            let tensor = fixture[&format!("x{view}.{t}")].clone();
            inputs.insert(format!("view{view}"), tensor);
        }
        inputs.insert("lr".into(), Tensor::f32(&[], &[rates[t] as f32]));
        inputs.insert("momentum".into(), Tensor::f32(&[], &[momenta[t] as f32]));
        let step = Tensor {
            shape: Shape::scalar(DType::I32),
            bytes: (t as i32).to_le_bytes().to_vec(),
        };
        inputs.insert("step".into(), step);
        state = program.call(&inputs);
        let metrics = state.remove("metrics").unwrap().values();
        assert_eq!((names.len(), names[0].as_str()), (metrics.len(), "loss"));
        let off = (metrics[0] / losses[t] - 1.0).abs();
        assert!(
            off < LOSS_BOUND,
            "{case}, step {t}: {}, not {}",
            metrics[0],
            losses[t]
        );
        assert!(
            metrics.iter().all(|x| x.is_finite() && *x > 0.0),
            "{names:?}: {metrics:?}"
        );
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
        first_gradients(&fixture, case, &config);
        three_steps(&fixture, case, &config);
    }
}

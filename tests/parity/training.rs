//! Methods on the views of a fixture: their first gradients, and steps of
//! training.

use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Shape, Value};
use xla_moco::methods::{self, Pictures, Step};
use xla_moco::nn::{Role, Spec, Variables};
use xla_moco::programs::train_step::{TrainStep, Views, build, initial_state};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part};

/// Norms below this are rounding noise of what is zero in theory.
const NOISE: f64 = 2e-6;
const LOSS_BOUND: f64 = 1e-5;
/// Of the momentum encoder's start over the base encoder's, where a fixture
/// does not have the former.
const SLOW_START: f32 = 0.9;

/// [`assert_close`], but what is noise need only be small.
pub fn compare(what: &str, found: &Tensor, wanted: &Tensor, bound: f64) {
    let norm = |t: &Tensor| t.values().iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm(wanted) <= NOISE {
        assert!(norm(found) <= 10.0 * NOISE, "{what}: {:e}", norm(found));
    } else {
        assert_close(what, found, wanted, bound);
    }
}

/// The third of a `qkv.bias` that belongs to the keys.
pub fn keys_third(tensor: &mut Tensor) -> Vec<u8> {
    let third = tensor.bytes.len() / 3;
    tensor
        .bytes
        .splice(third..2 * third, vec![0; third])
        .collect()
}

/// Parameters whose gradient is zero in theory and noise in practice.
pub fn is_noise(name: &str) -> bool {
    name.ends_with("_encoder.norm.bias")
}

/// A case's tensors with the views that all have.
pub fn tensors(fixture: &Tensors, case: &str) -> Tensors {
    let mut own = part(fixture, case);
    let shared = |name: &&String| name.as_str() == "m" || name.starts_with(['x']);
    for name in fixture.keys().filter(shared) {
        own.insert(name.clone(), fixture[name].clone());
    }
    own
}

/// The start: what is stored, the momentum encoder as a part of the base
/// encoder, fixed positions as they are.
pub fn start(own: &Tensors, config: &RunConfig) -> Tensors {
    let mut init = part(own, "init");
    for spec in methods::specs(config) {
        let Some(rest) = spec.name.strip_prefix("momentum_encoder.") else {
            continue;
        };
        if spec.role != Role::Frozen {
            continue;
        }
        let base = format!("base_encoder.{rest}");
        let trained = |s: &Spec| s.name == base && s.role == Role::Trained;
        let factor = match methods::specs(config).iter().any(trained) {
            true => SLOW_START,
            false => 1.0,
        };
        let values = init[&base].values();
        let values: Vec<f32> = values.iter().map(|x| *x as f32 * factor).collect();
        let tensor = Tensor::f32(init[&base].shape.dims(), &values);
        init.insert(spec.name, tensor);
    }
    init
}

pub fn loss_agrees(what: &str, loss: f64, wanted: f64) {
    let off = (loss / wanted - 1.0).abs();
    assert!(off < LOSS_BOUND, "{what}: {loss}, not {wanted}");
}

/// `loss` of the first views from the state `init`, and the gradient of each
/// trained parameter under its name.
pub fn first_gradients(
    fixture: &Tensors,
    config: &RunConfig,
    init: Tensors,
    lowering: Lowering,
) -> Tensors {
    let b = Builder::new();
    let mut inputs = init;
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
        lowering,
        variables: &variables,
        pictures: Pictures::Whole(methods::both_views(&b, views).unwrap()),
        supervision: None,
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
    Program::new(&client(), b.finish().unwrap()).call(&inputs)
}

/// What training gave.
pub struct Trained {
    pub state: Tensors,
    /// Names of the metrics, and their values after each step.
    pub names: Vec<String>,
    pub metrics: Vec<Vec<f64>>,
}

/// So many whole steps of the fixture from the state `init`.
pub fn train(fixture: &Tensors, config: &RunConfig, init: Tensors, steps: usize) -> Trained {
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
    for (name, tensor) in init {
        let old = state.insert(name.clone(), tensor);
        assert!(old.is_some(), "{name} is no part of the state");
    }
    let (rates, momenta) = (fixture["lr"].values(), fixture["m"].values());
    let mut metrics = Vec::new();
    for t in 0..steps {
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
        metrics.push(state.remove("metrics").unwrap().values());
    }
    Trained {
        state,
        names,
        metrics,
    }
}

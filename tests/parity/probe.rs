//! The linear probe: twelve steps at three learning rates, and the classes
//! that come of them.

use xla_moco::config::ResolvedSchedule;
use xla_moco::graph::{DType, Shape};
use xla_moco::programs::probe_step::{self, Probe, Source};

use crate::fixture::{Program, Tensor, Tensors, assert_close, client, part, read};

const BASE: [f64; 3] = [0.3, 3.0, 30.0];
const EPOCHS: u64 = 4;
/// Rounding through twelve steps, the last at rates that overshoot.
const BOUND: f64 = 1e-5;

fn integers(tensor: &Tensor) -> Vec<i32> {
    let words = tensor.bytes.as_chunks().0.iter();
    words.map(|word| i32::from_le_bytes(*word)).collect()
}

fn check(case: &str, batch_norm: bool) {
    let fixture = read("probe.safetensors");
    let expected = part(&fixture, case);
    let (features, order) = (&fixture["features"], &fixture["order"]);
    let [classes, dim] = *fixture["init"].shape.dims() else {
        panic!("init is a matrix");
    };
    let [epochs, steps, batch] = *order.shape.dims() else {
        panic!("order is [epochs, steps, batch]");
    };
    let probe = Probe {
        taps: 1,
        rates: BASE.len(),
        classes,
        dim,
        batch_norm,
    };
    let client = client();
    let step = Program::new(
        &client,
        probe_step::build(&probe, batch, Source::Features)
            .unwrap()
            .graph,
    );

    let mut state = Tensors::new();
    for array in probe_step::initial_state(&probe, 0) {
        let (shape, bytes) = (array.shape, array.data);
        state.insert(array.name, Tensor { shape, bytes });
    }
    let weight = state.get_mut("head.weight").unwrap();
    weight.bytes = fixture["init"].bytes.repeat(BASE.len());

    let schedule = ResolvedSchedule {
        total_steps: EPOCHS,
        warmup_steps: 0,
    };
    let labels = integers(&fixture["labels"]);
    let (mut losses, mut right) = (Vec::new(), Vec::new());
    for (number, ids) in integers(order).chunks_exact(batch).enumerate() {
        let rows = ids.iter().map(|id| *id as usize);
        let row = |id: usize| features.bytes[id * dim * 4..][..dim * 4].to_vec();
        let mut inputs = state.clone();
        let x = Tensor {
            shape: Shape::new(DType::F32, &[batch, dim]),
            bytes: rows.clone().flat_map(row).collect(),
        };
        inputs.insert("features".into(), x);
        let of = Tensor {
            shape: Shape::new(DType::I32, &[batch]),
            bytes: rows.flat_map(|id| labels[id].to_le_bytes()).collect(),
        };
        inputs.insert("labels".into(), of);
        let epoch = (number / steps) as u64;
        let lr = BASE.map(|base| schedule.lr(base * batch as f64 / 256.0, epoch) as f32);
        inputs.insert("lr".into(), Tensor::f32(&[BASE.len()], &lr));
        state = step.call(&inputs);
        let metrics = state.remove("metrics").unwrap().values();
        losses.extend(metrics[..BASE.len()].iter().map(|x| *x as f32));
        right.extend(metrics[BASE.len()..].iter().map(|x| *x as f32));
    }
    let shape = [epochs * steps, BASE.len()];
    for (what, found) in [("loss", losses), ("top1", right)] {
        let found = Tensor::f32(&shape, &found);
        assert_close(&format!("{case}: {what}"), &found, &expected[what], BOUND);
    }
    let slot = |of: &str| format!("optimizer.momentum_buffer.head.{of}");
    let mut names = vec![
        ("head.weight".into(), "weight"),
        ("head.bias".into(), "bias"),
        (slot("weight"), "momentum_buffer.weight"),
        (slot("bias"), "momentum_buffer.bias"),
    ];
    if batch_norm {
        names.push(("norm.running_mean".into(), "running_mean"));
        names.push(("norm.running_var".into(), "running_var"));
    }
    assert_eq!(names.len(), state.len());
    for (ours, theirs) in names {
        let what = format!("{case}: {theirs}");
        assert_close(&what, &state[&ours], &expected[theirs], BOUND);
    }

    let test = &fixture["test"];
    let predict = probe_step::predict(&probe, test.shape.dims()[0]).unwrap();
    state.insert("features".into(), test.clone());
    let found = Program::new(&client, predict.graph).call(&state);
    let found = integers(&found["predicted"]);
    assert_eq!(found, integers(&expected["predicted"]), "{case}");
}

#[test]
fn the_probe_trains_as_sgd_of_pytorch_does() {
    check("plain", false);
}

#[test]
fn the_probe_behind_a_norm_without_affine_part() {
    check("norm", true);
}

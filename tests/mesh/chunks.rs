//! `accumulate`: a batch whose pictures are encoded in chunks makes the same
//! step in less memory.

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::data::augment::draw;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::{DType, Shape};
use xla_moco::plan::{collectives, partitioned};
use xla_moco::programs::train_step::{TrainStep, Views};
use xla_moco::rng::{Purpose, Stream};

use crate::equality::{distance, is_noise, on_one_device, relative};
use crate::run::{Arrays, Runner, batch, config, f32s, hlo, state, step};

/// Loss and state after one step.
struct Stepped {
    loss: f64,
    state: Arrays,
}

fn run(runner: &Runner, step: &TrainStep, batch: Arrays) -> Stepped {
    let mut arrays = state(step);
    arrays.extend(batch);
    let mut state = runner.call(&arrays);
    let (_, metrics) = state.remove("metrics").unwrap();
    Stepped {
        loss: f32s(&metrics)[0],
        state,
    }
}

/// Losses agree to 1e-5, and gradients to 1e-4 a tensor: the first moments
/// after one step are a tenth of them.
fn assert_alike(what: &str, found: &Stepped, loss: f64, state: &Arrays) {
    let off = relative(found.loss, loss);
    assert!(off <= 1e-5, "{what}: the loss is {off:e} off");
    assert_eq!(found.state.len(), state.len());
    let mut moments = 0;
    for (name, (_, expected)) in state {
        if name.starts_with("optimizer.exp_avg.") && !is_noise(name) {
            let off = distance(name, &found.state[name].1, expected);
            assert!(off <= 1e-4, "{what}: the gradient of {name} is {off:e} off");
            moments += 1;
        }
    }
    assert!(moments > 30, "{what}: {moments} gradients");
}

/// Each method with its own heads, in one of the lowerings.
fn cases() -> [(Lowering, Json); 4] {
    let head = |layers: usize, norm: &str| json!({"layers": layers, "hidden": 40, "out": 16, "norm": norm});
    [
        (
            Lowering::Unrolled,
            json!({"name": "moco_v3", "projector": head(3, "all"), "predictor": head(2, "all")}),
        ),
        (
            Lowering::Remat,
            json!({"name": "byol", "projector": head(2, "hidden"), "predictor": head(2, "hidden")}),
        ),
        (
            Lowering::Scan,
            json!({"name": "simclr", "projector": head(3, "all"), "temperature": 0.2}),
        ),
        (
            Lowering::Unrolled,
            json!({"name": "swav", "projector": head(3, "none"), "swav": {"prototypes": 10}}),
        ),
    ]
}

#[test]
fn every_method_makes_the_same_step_in_chunks() {
    for (lowering, method) in cases() {
        let of = |accumulate: usize, lowering| {
            let set = [
                ("accumulate", json!(accumulate)),
                ("method", method.clone()),
                // A trunk of more than one block beside the last.
                (
                    "model",
                    json!({
                        "arch": "vit", "blocks": 3, "dim": 24, "heads": 3, "patch": 4,
                        "image_size": 16, "compute_dtype": "f32",
                    }),
                ),
            ];
            let config = config(1, &set);
            let step = step(&config, lowering);
            run(&Runner::of_step(&step), &step, batch(0))
        };
        let whole = of(1, Lowering::Unrolled);
        let name = method["name"].to_string();
        assert_alike(&name, &of(4, lowering), whole.loss, &whole.state);
    }
}

/// The shipped model for CIFAR-10, with all of the augmentation.
fn micro(accumulate: usize) -> RunConfig {
    let head = |layers: usize| json!({"layers": layers, "hidden": 512, "out": 128});
    RunConfig::from_value(json!({
        "batch": 256,
        "accumulate": accumulate,
        "model": {
            "arch": "vit", "blocks": 4, "dim": 128, "heads": 4, "patch": 8, "image_size": 32,
            "compute_dtype": "f32",
        },
        "method": {
            "name": "moco_v3", "temperature": 0.2, "projector": head(3), "predictor": head(2),
        },
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": 10, "warmup_steps": 1},
    }))
    .unwrap()
}

/// Crops of noise about colours of their own, and the rows that `train` draws.
fn crops(config: &RunConfig) -> Arrays {
    let (n, side) = (config.batch, config.model.image_size);
    let mut arrays = batch(0);
    for view in 0..2 {
        let (mut pixels, mut rows) = (Vec::new(), Vec::new());
        for i in 0..n {
            let mut stream = Stream::new(0, Purpose::Test, (view as u32, i as u32));
            let colour = [(); 3].map(|()| stream.range(40.0, 215.0));
            for _ in 0..side * side {
                pixels.extend(colour.map(|c| stream.range(c - 40.0, c + 40.0) as u8));
            }
            let (_, row) = draw(
                &config.augment,
                0,
                0,
                i as u32,
                view,
                (side as u32, side as u32),
            );
            rows.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        }
        let columns = rows.len() / (4 * n);
        arrays.insert(
            format!("view{}", view + 1),
            (Shape::new(DType::U8, &[n, side, side, 3]), pixels),
        );
        arrays.insert(
            format!("augment{}", view + 1),
            (Shape::new(DType::F32, &[n, columns]), rows),
        );
    }
    arrays
}

#[test]
fn memory_falls_with_the_chunk_and_the_step_stays() {
    let of = |accumulate: usize| {
        let config = micro(accumulate);
        let step = TrainStep {
            views: Views::Augmented,
            ..step(&config, Lowering::Unrolled)
        };
        let runner = Runner::of_step(&step);
        (
            run(&runner, &step, crops(&config)),
            runner.temporary_bytes(),
        )
    };
    let (whole, mut last) = of(1);
    for accumulate in [4, 16] {
        let (found, bytes) = of(accumulate);
        let what = format!("{accumulate} chunks");
        assert_alike(&what, &found, whole.loss, &whole.state);
        // Four times smaller chunks; what all features together need stays.
        assert!(3 * bytes < last, "{what}: {bytes} bytes after {last}");
        last = bytes;
    }
}

/// The collectives of `accumulate` on four devices, but those of the backbone's
/// gradients: (kind, bytes, scope). And how many of the backbone's there are.
fn exchanged(config: &RunConfig) -> (Vec<(&'static str, u64, String)>, usize) {
    let hlo = hlo(&step(config, Lowering::Unrolled));
    let found = collectives(partitioned(&hlo).expect("the plugin dumps the pass"));
    let of_backbone = |scope: &str| {
        let own = scope.trim_start_matches("grad/");
        own.starts_with("base_encoder/") && !own.starts_with("base_encoder/head/")
    };
    let (backbone, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|c| of_backbone(&c.scope));
    assert!(backbone.iter().all(|c| c.kind == "all-reduce"));
    let mut others: Vec<_> = others
        .into_iter()
        .map(|c| (c.kind, c.bytes, c.scope))
        .collect();
    others.sort();
    (others, backbone.len())
}

/// On a mesh each chunk has rows of every device, and none moves: what the
/// devices tell each other is what they tell without chunks. The backbone's
/// gradients are reduced within the loop, so once a chunk.
#[test]
fn no_chunk_gathers_the_batch() {
    let chunked = config(4, &[("accumulate", json!(4))]);
    let found = exchanged(&chunked);
    assert_eq!(found, exchanged(&config(4, &[])));
    let gathered = found.0.iter().filter(|c| c.0 != "all-reduce");
    let gathered: Vec<_> = gathered.map(|c| (c.0, c.2.as_str())).collect();
    assert_eq!(gathered, [("all-gather", "loss/multiply"); 2]);

    let step = step(&chunked, Lowering::Unrolled);
    let found = run(&Runner::of_step(&step), &step, batch(0));
    let one = on_one_device();
    assert_alike("4 devices", &found, one.losses[0], &one.first);
}

//! The kNN monitor on the CPU plugins against a plain reference.

mod reference;
#[path = "../support/mod.rs"]
mod support;

use reference::Reference;
use support::{f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::graph::{Builder, DType, Mesh, Shape, Sharding, emit};
use xla_moco::pjrt::{Arg, Buffer, Client, CompileOptions, Executable, Program, export_hlo};
use xla_moco::programs::knn_queue::{Queue, Samples, Vote, step};
use xla_moco::rng::{Purpose, Stream};

const BATCH: usize = 8;
const ROWS: usize = 24;
const DIM: usize = 5;
const CLASSES: usize = 3;
const NAMES: [&str; 5] = ["features", "labels", "ids", "pointer", "filled"];

/// The queue as the arguments' bytes.
type State = [Vec<u8>; 5];

/// A batch on the host.
struct Batch {
    features: Vec<f32>,
    labels: Vec<i32>,
    ids: Vec<u32>,
}

fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn empty() -> State {
    let zero = i32s(&[0]);
    [
        vec![0; ROWS * DIM * 4],
        vec![0; ROWS * 4],
        vec![0; ROWS * 4],
        zero.clone(),
        zero,
    ]
}

fn shapes(rows: usize) -> [Shape; 5] {
    [
        Shape::new(DType::F32, &[rows, DIM]),
        Shape::new(DType::I32, &[rows]),
        Shape::new(DType::U32, &[rows]),
        Shape::scalar(DType::I32),
        Shape::scalar(DType::I32),
    ]
}

/// The program: queue, batch, classify; new queue (in place), accuracy.
fn build(devices: usize, vote: Vote) -> String {
    let b = Builder::new();
    let whole = |shape: Shape| Some(Sharding::replicated(shape.rank()));
    let state: Vec<_> = std::iter::zip(NAMES, shapes(ROWS))
        .map(|(name, shape)| b.sharded_input(name, shape, whole(shape)))
        .collect();
    let split = |i: usize| {
        let shape = shapes(BATCH)[i];
        let sharding = Sharding::split(shape.rank(), 0);
        b.sharded_input(format!("batch_{}", NAMES[i]), shape, Some(sharding))
    };
    let queue = Queue {
        features: state[0],
        labels: state[1],
        ids: state[2],
        pointer: state[3],
        filled: state[4],
    };
    let batch = Samples {
        features: split(0),
        labels: split(1),
        ids: split(2),
    };
    let classify = b.sharded_input(
        "classify",
        Shape::scalar(DType::Pred),
        whole(state[3].shape),
    );
    let (queue, top1) = step(&b, &queue, &batch, classify, vote).unwrap();
    let new = [
        queue.features,
        queue.labels,
        queue.ids,
        queue.pointer,
        queue.filled,
    ];
    for (name, value) in NAMES.into_iter().zip(new) {
        b.sharded_output(name, value, whole(value.shape));
        b.donate(name, name).unwrap();
    }
    b.sharded_output("top1", top1, whole(top1.shape));
    let mesh = (devices > 1).then(|| Mesh::data(devices));
    emit::stablehlo("knn_queue", &b.finish().unwrap(), mesh.as_ref())
}

fn compile(client: &Client, devices: usize, vote: Vote) -> Executable {
    let options = CompileOptions {
        num_partitions: devices,
        ..CompileOptions::default()
    };
    let text = build(devices, vote);
    client.compile(&Program { text: &text }, &options).unwrap()
}

/// One step on all the devices; every device's queue must be the same.
fn run(
    client: &Client,
    program: &Executable,
    state: &State,
    batch: &Batch,
    classify: bool,
) -> (State, f32) {
    let devices = client.devices();
    let parts = [
        f32_bytes(&batch.features),
        i32s(&batch.labels),
        batch.ids.iter().flat_map(|x| x.to_le_bytes()).collect(),
    ];
    let upload = |bytes: &[u8], shape: Shape, device: usize| -> Buffer {
        client
            .buffer_from_host(bytes, shape.dtype, shape.dims(), &devices[device])
            .unwrap()
    };
    let arguments = |device: usize| -> Vec<Arg<'static>> {
        let queue = state.iter().zip(shapes(ROWS));
        let own = parts.iter().zip(shapes(BATCH / devices.len()));
        let mut all: Vec<Buffer> = queue.map(|(x, s)| upload(x, s, device)).collect();
        all.extend(own.map(|(bytes, shape)| {
            let share = shape.bytes();
            upload(&bytes[device * share..][..share], shape, device)
        }));
        all.push(upload(
            &[u8::from(classify)],
            Shape::scalar(DType::Pred),
            device,
        ));
        all.into_iter().map(Arg::Donate).collect()
    };
    let rows = (0..devices.len()).map(arguments).collect();
    let results: Vec<Vec<Vec<u8>>> = program
        .execute(rows)
        .unwrap()
        .buffers
        .iter()
        .map(|row| row.iter().map(|b| b.to_host().unwrap()).collect())
        .collect();
    let top1 = f32_values(&results[0][5])[0];
    assert!(results.iter().all(|r| r[..5] == results[0][..5]));
    let state = results[0][..5].to_vec().try_into().unwrap();
    (state, top1)
}

/// Batch number `n` of an epoch of `ids` samples: clusters with much noise.
fn draw(n: u32, ids: u32) -> Batch {
    let mut stream = Stream::new(3, Purpose::Test, (n, 0));
    let ids: Vec<u32> = (0..BATCH as u32)
        .map(|i| (n * BATCH as u32 + i) % ids)
        .collect();
    let labels: Vec<i32> = ids.iter().map(|id| (id % CLASSES as u32) as i32).collect();
    let features = labels
        .iter()
        .flat_map(|l| {
            (0..DIM)
                .map(|d| f64::from(u8::from(d == *l as usize)))
                .collect::<Vec<_>>()
        })
        .map(|x| (x + 0.8 * stream.normal()) as f32)
        .collect();
    Batch {
        features,
        labels,
        ids,
    }
}

fn same(found: f32, expected: f64) -> bool {
    found.is_nan() && expected.is_nan() || (f64::from(found) - expected).abs() < 1e-3
}

/// Seven batches through a queue of three: empty, partly filled, full, and
/// twice round, on one device and on four.
#[test]
fn batches_are_classified_before_they_enter() {
    let vote = Vote {
        k: 7,
        temperature: 0.07,
        classes: CLASSES,
    };
    for devices in [1, 4] {
        on_each_cpu_plugin(devices, |plugin, client| {
            let program = compile(client, devices, vote);
            let (mut state, mut reference) = (empty(), Reference::default());
            let mut seen = Vec::new();
            for n in 0..7 {
                // The ids repeat while their rows are still in the queue.
                let batch = draw(n, 20);
                let expected = reference.top1(&batch, vote);
                let (new, top1) = run(client, &program, &state, &batch, true);
                assert!(
                    same(top1, expected),
                    "{plugin} {n}: {top1}, expected {expected}"
                );
                reference.enqueue(&batch);
                state = new;
                let numbers = [3, 4].map(|i| i32::from_le_bytes(state[i][..].try_into().unwrap()));
                assert_eq!(
                    numbers,
                    [reference.pointer as i32, reference.rows.len() as i32]
                );
                let rows = f32_values(&state[0]);
                for (i, row) in reference.rows.iter().enumerate() {
                    let found = &rows[i * DIM..][..DIM];
                    let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-6;
                    assert!(found.iter().zip(&row.0).all(near), "{plugin} {n} row {i}");
                    assert_eq!(state[1][4 * i..][..4], row.1.to_le_bytes());
                    assert_eq!(state[2][4 * i..][..4], row.2.to_le_bytes());
                }
                seen.push(top1);
            }
            // The check would be empty if all were right, or none.
            assert!(seen[0].is_nan() && seen[1..].iter().any(|x| (1.0..99.0).contains(x)));
        });
    }
}

#[test]
fn a_sample_has_no_vote_on_itself_and_strangers_alone_decide() {
    let vote = Vote {
        k: 200,
        temperature: 0.07,
        classes: CLASSES,
    };
    on_each_cpu_plugin(1, |plugin, client| {
        let program = compile(client, 1, vote);
        let same_again = Batch {
            labels: vec![1; BATCH],
            ..draw(0, 100)
        };
        // With 8 rows of other ids beside them, all of another class, each
        // sample's only right neighbours would be its own rows.
        let others = Batch {
            ids: vec![77; BATCH],
            labels: vec![2; BATCH],
            ..draw(1, 100)
        };
        let (state, _) = run(client, &program, &empty(), &others, true);
        let alone = Batch {
            ids: vec![5; BATCH],
            ..same_again
        };
        let (state, _) = run(client, &program, &state, &alone, true);
        let (_, top1) = run(client, &program, &state, &alone, true);
        assert_eq!(top1, 0.0, "{plugin}");
        // Under other ids the equal pictures vote, and are the nearest.
        let renamed = Batch {
            ids: vec![6; BATCH],
            ..alone
        };
        let (_, top1) = run(client, &program, &state, &renamed, true);
        assert_eq!(top1, 100.0, "{plugin}");
    });
}

#[test]
fn it_is_nan_unless_asked_and_counts_only_what_is_labelled() {
    let vote = Vote {
        k: 3,
        temperature: 0.01,
        classes: CLASSES,
    };
    on_each_cpu_plugin(1, |plugin, client| {
        let program = compile(client, 1, vote);
        let (state, _) = run(client, &program, &empty(), &draw(0, 100), false);
        let (skipped, top1) = run(client, &program, &state, &draw(1, 100), false);
        assert!(top1.is_nan(), "{plugin}");
        let (classified, _) = run(client, &program, &state, &draw(1, 100), true);
        assert!(
            skipped == classified,
            "{plugin}: the queue does not depend on the question"
        );

        // Copies of what is in the queue, some of them unlabelled.
        let mut copies = Batch {
            ids: (50..58).collect(),
            ..draw(0, 100)
        };
        copies.labels[..3].fill(-1);
        let (_, top1) = run(client, &program, &state, &copies, true);
        assert_eq!(top1, 100.0, "{plugin}");
        copies.labels.fill(-1);
        let (_, top1) = run(client, &program, &state, &copies, true);
        assert!(top1.is_nan(), "{plugin}");
    });
}

/// No instruction copies the features: the read comes before the write.
#[test]
fn the_queue_is_updated_in_place() {
    let vote = Vote {
        k: 7,
        temperature: 0.07,
        classes: CLASSES,
    };
    on_each_cpu_plugin(1, |plugin, client| {
        let text = build(1, vote);
        let compile = |options: &CompileOptions| client.compile(&Program { text: &text }, options);
        let (_, hlo) = export_hlo(&CompileOptions::default(), None, compile).unwrap();
        let features = format!("f32[{ROWS},{DIM}]");
        let lines: Vec<&str> = hlo.after_optimizations.lines().collect();
        assert!(lines.iter().any(|line| line.contains(&features)));
        let copied = |line: &&&str| line.contains(&features) && line.contains(" copy(");
        assert_eq!(lines.iter().find(copied), None, "{plugin}");
    });
}

#[test]
fn a_batch_that_does_not_divide_the_queue_is_refused() {
    let b = Builder::new();
    let input = |shape: Shape| b.input("x", shape);
    let [features, labels, ids, pointer, filled] = shapes(12).map(input);
    let queue = Queue {
        features,
        labels,
        ids,
        pointer,
        filled,
    };
    let [features, labels, ids, ..] = shapes(BATCH).map(input);
    let batch = Samples {
        features,
        labels,
        ids,
    };
    let classify = input(Shape::scalar(DType::Pred));
    let vote = Vote {
        k: 1,
        temperature: 1.0,
        classes: 2,
    };
    let error = step(&b, &queue, &batch, classify, vote).unwrap_err();
    assert!(
        error.to_string().contains("must divide the queue"),
        "{error}"
    );
}

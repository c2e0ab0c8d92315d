//! Steps against softmax regression in plain arithmetic.

use crate::support::{compile, f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::graph::DType;
use xla_moco::pjrt::{Arg, Buffer};
use xla_moco::programs::probe_step::{self, Probe, Source};
use xla_moco::rng::{Purpose, Stream};

const RATES: [f64; 3] = [0.05, 0.7, 4.0];
const BATCH: usize = 10;
/// Kinds of features, each with all rates.
const TAPS: usize = 2;
const DIM: usize = 5;
const CLASSES: usize = 3;
const STEPS: usize = 6;

/// One classifier and its momentum, in f64: rows of `DIM` weights and a bias.
#[derive(Clone)]
struct Classifier {
    rows: Vec<[f64; DIM + 1]>,
    velocity: Vec<[f64; DIM + 1]>,
}

impl Classifier {
    /// One step of SGD with momentum .9 on the mean cross-entropy; that loss,
    /// and the percentage that was right.
    fn step(&mut self, x: &[[f64; DIM]], labels: &[usize], lr: f64) -> [f64; 2] {
        let mut gradient = vec![[0.0; DIM + 1]; CLASSES];
        let (mut loss, mut right) = (0.0, 0);
        for (x, &label) in x.iter().zip(labels) {
            let logit = |row: &[f64; DIM + 1]| {
                x.iter().zip(row).map(|(a, b)| a * b).sum::<f64>() + row[DIM]
            };
            let logits: Vec<f64> = self.rows.iter().map(logit).collect();
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = logits.iter().map(|z| (z - largest).exp()).sum();
            loss += total.ln() - (logits[label] - largest);
            right += usize::from(logits[label] == largest);
            for (class, gradient) in gradient.iter_mut().enumerate() {
                let p = (logits[class] - largest).exp() / total;
                let error = (p - f64::from(u8::from(class == label))) / BATCH as f64;
                for (g, x) in gradient.iter_mut().zip(x.iter().chain([&1.0])) {
                    *g += error * x;
                }
            }
        }
        let parts = self.rows.iter_mut().zip(&mut self.velocity).zip(&gradient);
        for ((row, velocity), gradient) in parts {
            for i in 0..=DIM {
                velocity[i] = 0.9 * velocity[i] + gradient[i];
                row[i] -= lr * velocity[i];
            }
        }
        [loss / BATCH as f64, 100.0 * right as f64 / BATCH as f64]
    }
}

/// Each feature less its mean, over its deviation in the batch.
fn normalised(x: &[[f64; DIM]]) -> Vec<[f64; DIM]> {
    let mut y = x.to_vec();
    for d in 0..DIM {
        let mean = x.iter().map(|row| row[d]).sum::<f64>() / x.len() as f64;
        let square = |row: &[f64; DIM]| (row[d] - mean).powi(2);
        let variance = x.iter().map(square).sum::<f64>() / x.len() as f64;
        y.iter_mut()
            .for_each(|row| row[d] = (row[d] - mean) / (variance + 1e-5).sqrt());
    }
    y
}

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*found) - expected).abs();
        let bound = 2e-5 * expected.abs().max(1.0);
        assert!(apart <= bound, "{what} {i}: {found}, not {expected}");
    }
}

/// Six steps of three classifiers on each of two kinds of features at once are
/// those of each alone, with a rate that changes on the way.
#[test]
fn steps_are_those_of_softmax_regression() {
    on_each_cpu_plugin(1, |plugin, client| {
        for batch_norm in [false, true] {
            let what = format!("{plugin}, norm {batch_norm}");
            let probe = Probe {
                taps: TAPS,
                rates: RATES.len(),
                classes: CLASSES,
                dim: DIM,
                batch_norm,
            };
            let program = probe_step::build(&probe, BATCH, Source::Features).unwrap();
            let step = compile(client, &program.text());
            let start = probe_step::initial_state(&probe, 3);
            let inputs = &program.graph.inputs;
            let names: Vec<&str> = start.iter().map(|array| array.name.as_str()).collect();
            let expected: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            assert_eq!(names, expected[..program.state], "{what}");

            let weights = f32_values(&start[0].data);
            assert!(f32_values(&start[1].data).iter().all(|bias| *bias == 0.0));
            let classifier = |at: usize| {
                let rows = weights.chunks(DIM).skip(at * CLASSES).take(CLASSES);
                let row =
                    |w: &[f32]| std::array::from_fn(|i| w.get(i).map_or(0.0, |x| f64::from(*x)));
                Classifier {
                    rows: rows.map(row).collect(),
                    velocity: vec![[0.0; DIM + 1]; CLASSES],
                }
            };
            let all = 0..TAPS * RATES.len();
            let mut reference: Vec<Classifier> = all.map(classifier).collect();

            let device = &client.devices()[0];
            let upload = |bytes: &[u8], dtype: DType, dims: &[usize]| {
                client.buffer_from_host(bytes, dtype, dims, device).unwrap()
            };
            let mut state: Vec<Buffer> = start
                .iter()
                .map(|array| upload(&array.data, array.shape.dtype, array.shape.dims()))
                .collect();
            for number in 0..STEPS {
                let mut stream = Stream::new(9, Purpose::Test, (number as u32, 0));
                let labels: Vec<usize> = (0..BATCH)
                    .map(|_| stream.below(CLASSES as u32) as usize)
                    .collect();
                let mut draw = |label: &usize| -> [f64; DIM] {
                    let value =
                        |d| f64::from((stream.normal() + f64::from(u8::from(d == *label))) as f32);
                    std::array::from_fn(value)
                };
                let x: [Vec<[f64; DIM]>; TAPS] =
                    std::array::from_fn(|_| labels.iter().map(&mut draw).collect());
                let lr = RATES.map(|rate| rate / (1.0 + number as f64));
                // A picture's features of all kinds stand side by side.
                let narrow: Vec<f32> = (0..BATCH)
                    .flat_map(|i| x.iter().flat_map(move |kind| kind[i]))
                    .map(|v| v as f32)
                    .collect();
                let words: Vec<u8> = labels
                    .iter()
                    .flat_map(|l| (*l as i32).to_le_bytes())
                    .collect();
                let given = [
                    upload(&f32_bytes(&narrow), DType::F32, &[BATCH, TAPS * DIM]),
                    upload(&words, DType::I32, &[BATCH]),
                    upload(
                        &f32_bytes(&lr.map(|lr| lr as f32)),
                        DType::F32,
                        &[RATES.len()],
                    ),
                ];
                let mut arguments: Vec<Arg> = state.drain(..).map(Arg::Donate).collect();
                arguments.extend(given.iter().map(Arg::Borrow));
                let mut results = step.execute(vec![arguments]).unwrap().buffers.remove(0);
                let metrics = f32_values(&results.pop().unwrap().to_host().unwrap());
                state = results;

                let x = x.map(|kind| if batch_norm { normalised(&kind) } else { kind });
                let told: Vec<[f64; 2]> = reference
                    .iter_mut()
                    .enumerate()
                    .map(|(at, one)| {
                        let (kind, rate) = (at / RATES.len(), at % RATES.len());
                        one.step(&x[kind], &labels, lr[rate])
                    })
                    .collect();
                let told: Vec<f64> = [0, 1]
                    .iter()
                    .flat_map(|i| told.iter().map(|t| t[*i]))
                    .collect();
                close(&metrics, &told, &format!("{what}, step {number}: metrics"));
            }
            let read = |name: &str| {
                let at = names.iter().position(|known| *known == name).unwrap();
                f32_values(&state[at].to_host().unwrap())
            };
            for (prefix, part) in [
                ("", (|c| &c.rows) as fn(&Classifier) -> &Vec<[f64; DIM + 1]>),
                ("optimizer.momentum_buffer.", |c| &c.velocity),
            ] {
                let rows: Vec<[f64; DIM + 1]> =
                    reference.iter().flat_map(|c| part(c).clone()).collect();
                let weights: Vec<f64> = rows.iter().flat_map(|row| row[..DIM].to_vec()).collect();
                let biases: Vec<f64> = rows.iter().map(|row| row[DIM]).collect();
                let of = |name: &str| read(&format!("{prefix}{name}"));
                close(
                    &of("head.weight"),
                    &weights,
                    &format!("{what}: {prefix}weight"),
                );
                close(&of("head.bias"), &biases, &format!("{what}: {prefix}bias"));
            }
        }
    });
}

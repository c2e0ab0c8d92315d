//! The linear probe: steps against softmax regression in plain arithmetic,
//! and the command on a checkpoint of untrained variables.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::evaluation::{json, refused, run_folder};
use support::{compile, f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::checkpoint::{self, Origin, RunDir};
use xla_moco::config::Override;
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

fn probe(checkpoint: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .arg("probe")
        .arg("--checkpoint")
        .arg(checkpoint)
        .args(more)
        .output()
        .unwrap()
}

/// One narrow block at 16 px.
fn tiny() -> [Override; 5] {
    [
        Override::new("model.blocks", 1),
        Override::new("model.dim", 32),
        Override::new("model.heads", 2),
        Override::new("model.image_size", 16),
        Override::new("model.patch", 4),
    ]
}

/// 4 classes: chance is 25%.
const SAME: [&str; 4] = [
    "--data",
    "synthetic:K=4,N=120,px=16",
    "--test",
    "synthetic:K=4,N=120,px=16",
];

#[test]
fn the_fast_mode_is_labelled_and_fits_what_it_was_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let fast = ["--fast", "--bn", "--epochs", "60", "--batch", "40"];
    let one = [&SAME[..], &fast, &["--lr", "1", "--json"]].concat();
    let output = probe(run.root(), &one);
    let report = json(&output);
    // Trained and tested on the same pictures, without augmentation.
    assert!(report["top1"].as_f64().unwrap() > 50.0, "{report}");
    assert_eq!(report["fast"], true);
    assert!(report["mode"].as_str().unwrap().starts_with("fast: cached"));
    assert_eq!(report["train"]["pictures"], 120);
    assert_eq!(report["held_out_pictures"], 0);
    assert!(report["lr"]["held_out_top1"].is_null());
    assert_eq!(report["lr"]["peak"], 40.0 / 256.0);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("epoch 60 of 60"), "{told}");

    let several = [&SAME[..], &fast, &["--lr", "0.001,1", "--held-out", "0.25"]].concat();
    let output = probe(run.root(), &several);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    for words in [
        "linear probe (fast, not the published protocol) top-1",
        "of 120 test pictures (chance 25.00%",
        "best of the last epoch on 30 held-out training pictures",
        "train       90 of synthetic:",
        "momentum 0.9, weight decay 0",
        "batch norm  true",
        "chosen",
    ] {
        assert!(told.contains(words), "expected {words:?} in: {told}");
    }
}

#[test]
fn the_full_mode_sweeps_rates_and_tells_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let more = [
        "--epochs", "3", "--batch", "30", "--lr", "0.1,1,10", "--json",
    ];
    let of_run = || json(&probe(run.root(), &more));
    let report = of_run();
    assert_eq!(report["mode"], "full: augmented in training");
    assert_eq!(report["fast"], false);
    assert_eq!(report["train"]["pictures"], 180);
    assert_eq!(report["held_out_pictures"], 20);
    assert_eq!(report["test"]["pictures"], 40);
    assert_eq!(report["epochs"], 3);
    assert_eq!(report["checkpoint"]["step"], 12);
    assert_eq!(report["checkpoint"]["sha256"].as_str().unwrap().len(), 64);
    let sweep = report["sweep"].as_array().unwrap();
    let base: Vec<f64> = sweep
        .iter()
        .map(|rate| rate["base"].as_f64().unwrap())
        .collect();
    assert_eq!(base, [0.1, 1.0, 10.0]);
    // What is chosen is best on the held-out pictures.
    let score = |rate: &serde_json::Value| rate["held_out_top1"].as_f64().unwrap();
    let best = sweep.iter().map(score).fold(0.0, f64::max);
    assert_eq!(score(&report["lr"]), best);
    assert!(sweep.contains(&report["lr"]));
    let classes = report["per_class"].as_array().unwrap();
    let right: u64 = classes
        .iter()
        .map(|class| class["right"].as_u64().unwrap())
        .sum();
    let top1 = report["top1"].as_f64().unwrap();
    assert!((top1 - 100.0 * right as f64 / 40.0).abs() < 1e-9);
    // The same again, to the last digit, whatever the threads did.
    assert_eq!(of_run(), report);
}

/// A folder of a run that a test may name to the probe.
fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn layers_and_pools_are_probed_in_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = tiny();
    model[0] = Override::new("model.blocks", 3);
    let run = run_folder(&folder.path().join("run"), &model);
    let fast = ["--fast", "--epochs", "3", "--batch", "40", "--json"];
    let rates = ["--lr", "0.1,1", "--held-out", "0.25"];
    let with = |more: &[&str]| {
        json(&probe(
            run.root(),
            &[&SAME[..], &fast, &rates, more].concat(),
        ))
    };
    let all = with(&["--layers", "1,3", "--pool", "class,mean"]);
    let sweep = all["sweep"].as_array().unwrap();
    let places: Vec<&str> = sweep
        .iter()
        .map(|one| one["features"].as_str().unwrap())
        .collect();
    let [first, last] = ["1", "3"].map(|block| {
        ["class token", "mean of the patch tokens"]
            .map(|pool| format!("{pool} after block {block}"))
    });
    let expected: Vec<&str> = first
        .iter()
        .chain(&last)
        .flat_map(|name| [name.as_str(); 2])
        .collect();
    assert_eq!(places, expected);
    // Each alone gives what it gives beside the others.
    let alone = with(&["--layers", "1", "--pool", "mean"]);
    let numbers = |one: &serde_json::Value| {
        ["held_out_top1", "train_top1"].map(|key| one[key].as_f64().unwrap())
    };
    for (at, one) in alone["sweep"].as_array().unwrap().iter().enumerate() {
        assert_eq!(numbers(one), numbers(&sweep[2 + at]));
    }
    // The class token after the last block is the model's own output.
    let own = with(&[]);
    for (at, one) in own["sweep"].as_array().unwrap().iter().enumerate() {
        for (found, expected) in numbers(&sweep[4 + at]).iter().zip(numbers(one)) {
            assert!((found - expected).abs() < 2.0, "{found} and {expected}");
        }
    }
    let chosen = all["lr"]["features"].as_str().unwrap();
    assert_eq!(all["layer"], format!("{chosen}, base encoder"));
}

#[test]
fn a_probe_that_was_killed_goes_on_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let [broken, whole] = ["broken", "whole"].map(|name| folder.path().join(name));
    let of = |out: &Path, epochs: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xla-moco"));
        command.arg("probe").arg("--checkpoint").arg(run.root());
        command.args([
            "--epochs", epochs, "--batch", "30", "--lr", "0.1,1", "--json",
        ]);
        command.arg("--out").arg(out);
        command
    };
    let epochs = "60";
    let mut child = of(&broken, epochs)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let second = RunDir::create(&broken).unwrap().checkpoint_dir(2);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !second.exists() && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert!(!ended.success(), "it ended before it could be killed");
    let rest = of(&broken, epochs).output().unwrap();
    let told = String::from_utf8_lossy(&rest.stderr).into_owned();
    assert!(told.contains("goes on after epoch "), "{told}");
    assert_eq!(json(&rest), json(&of(&whole, epochs).output().unwrap()));

    // What is finished is only tested again; another probe's folder is not used.
    let again = of(&whole, epochs).output().unwrap();
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!told.contains("epoch 60 of 60"), "{told}");
    assert_eq!(json(&again), json(&rest));
    refused(
        &of(&whole, "61").output().unwrap(),
        "has the state of another probe",
    );
}

#[test]
fn several_sets_in_one_call_are_each_what_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let other = "synthetic:K=3,N=90,px=16";
    let fast = [
        "--fast", "--epochs", "4", "--batch", "30", "--lr", "1", "--json",
    ];
    let sets = [
        "--data", SAME[1], "--test", SAME[3], "--data", other, "--test", other,
    ];
    let both = json(&probe(run.root(), &[&sets[..], &fast].concat()));
    let alone = json(&probe(run.root(), &[&sets[4..], &fast].concat()));
    assert_eq!(both["sets"].as_array().unwrap().len(), 2);
    assert_eq!(both["sets"][0]["test"]["pictures"], 120);
    assert_eq!(both["sets"][1], alone);
    let out = [&sets[..], &fast, &["--out", words(folder.path())]].concat();
    refused(&probe(run.root(), &out), "give it with one --data");
    let uneven = [&sets[..], &fast, &["--test", other]].concat();
    refused(&probe(run.root(), &uneven), "2 --data and 3 --test");
}

/// As a checkpoint whose final norm has gain 1 and bias 0.
#[test]
fn the_final_norm_can_be_reset() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let plain = run_folder(&folder.path().join("plain"), &tiny());
    let loaded = checkpoint::open(run.root()).unwrap();
    let mut tensors = loaded.snapshot.into_tensors();
    for (name, value) in [("weight", 1.0f32), ("bias", 0.0)] {
        let name = format!("base_encoder.norm.{name}");
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name);
        let data = &mut tensor.unwrap().data;
        *data = f32_bytes(&vec![value; data.len() / 4]);
    }
    let reset = checkpoint::Snapshot::new(13, tensors).unwrap();
    checkpoint::save(&plain, &reset, &Origin::default()).unwrap();
    let with = |run: &RunDir, more: &[&str]| {
        let fast = [
            "--fast", "--epochs", "5", "--batch", "40", "--lr", "1", "--json",
        ];
        let report = json(&probe(run.root(), &[&SAME[..], &fast, more].concat()));
        (
            report["lr"].clone(),
            report["top1"].clone(),
            report["final_norm_reset"].clone(),
        )
    };
    let (rate, top1, said) = with(&run, &["--reset-norm"]);
    assert_eq!(said, true);
    let wanted = with(&plain, &[]);
    assert_eq!((rate.clone(), top1, false.into()), wanted);
    assert_ne!(rate, with(&run, &[]).0);
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &tiny());
    let root = run.root();
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for i in 0..3u8 {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([i * 50, 9, 9]));
        picture.save(bare.join(format!("{i}.png"))).unwrap();
    }
    let bare = bare.to_str().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["--data", bare, "--test", bare], "has no labels"),
        (&["--data", bare], "has no labels"),
        (
            &["--batch", "181"],
            "the batch is 181 pictures, but the data has 180",
        ),
        (&["--batch", "0"], "the batch is 0 pictures"),
        (&["--lr", ""], "--lr"),
        (&["--lr", "0.1,-1"], "-1 is not above 0"),
        (&["--lr", "inf"], "inf is not above 0"),
        (&["--held-out", "1"], "expected a share between 0 and 1"),
        (&["--layers", "2"], "there is no layer 2"),
        (&["--layers", "0"], "there is no layer 0"),
        (&["--crop-min", "0"], "expected a smallest crop above 0"),
        (
            &["--set", "model.dim=64", "--batch", "32"],
            "the run's model needs",
        ),
    ];
    for (more, words) in cases {
        refused(&probe(root, more), words);
    }
}

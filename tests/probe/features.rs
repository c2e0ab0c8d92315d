//! Features of single layers.

use super::{SAME, probe, tiny};
use crate::support::evaluation::{json, run_folder};
use crate::support::{compile, f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::config::{Override, RunConfig};
use xla_moco::graph::{Builder, DType, Graph, Shape, emit};
use xla_moco::models::{Pool, Tap, Trunk, vit};
use xla_moco::nn::{Mode, Site, Spec, Variables};
use xla_moco::pjrt::{Arg, Client};
use xla_moco::programs::augment;
use xla_moco::programs::features::{self, Form};
use xla_moco::rng::{Purpose, Stream};

const PICTURES: usize = 3;
const DIM: usize = 16;

fn config(blocks: usize, output: &str) -> RunConfig {
    RunConfig::from_value(serde_json::json!({
        "batch": 64,
        "model": {
            "arch": "vit", "blocks": blocks, "dim": DIM, "heads": 2, "patch": 4, "image_size": 8,
            "output": output, "compute_dtype": "f32",
        },
        "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"epochs": 10},
    }))
    .unwrap()
}

/// The program's features.
fn of(client: &Client, config: &RunConfig, form: Form) -> Vec<f32> {
    let program = features::build(config, PICTURES, form).unwrap();
    run(client, &program.graph, &program.text())
}

/// All tokens after all blocks, before the final norm: [PICTURES, T, dim].
fn tokens(client: &Client, config: &RunConfig) -> Vec<f32> {
    let b = Builder::new();
    let specs = vit::specs(config.model.vit().unwrap(), config.model.image_size);
    let input = |spec: Spec| {
        let name = format!("base_encoder.{}", spec.name);
        let value = b.input(&name, Shape::new(DType::F32, &spec.dims));
        (name, value)
    };
    let variables = Variables::new(specs.into_iter().map(input));
    let side = config.model.image_size;
    let pictures = b.input(
        "pictures",
        Shape::new(DType::U8, &[PICTURES, side, side, 3]),
    );
    let (mean, std) = (config.augment.mean, config.augment.std);
    let x = augment::normalise(&b, pictures, mean, std).unwrap();
    let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate).at("base_encoder");
    let x = vit::tokens(&site, config.model.vit().unwrap(), Trunk::PLAIN, x).unwrap();
    b.output("tokens", x);
    let graph = b.finish().unwrap();
    run(client, &graph, &emit::stablehlo("tokens", &graph, None))
}

/// A variable, drawn by its name alone, so that models of different depth share
/// those that both have.
fn drawn(name: &str, count: usize) -> Vec<f32> {
    let fold = |key: u32, byte| key.wrapping_mul(31) ^ u32::from(byte);
    let mut stream = Stream::new(3, Purpose::Test, (name.bytes().fold(7, fold), 0));
    (0..count).map(|_| 0.3 * stream.normal() as f32).collect()
}

/// The first result of a program whose arguments are drawn.
fn run(client: &Client, graph: &Graph, text: &str) -> Vec<f32> {
    let device = &client.devices()[0];
    let upload = |input: &xla_moco::graph::Input| {
        let shape = input.value.shape;
        let bytes: Vec<u8> = match shape.dtype {
            DType::U8 => {
                let mut stream = Stream::new(4, Purpose::Test, (0, 0));
                (0..shape.len()).map(|_| stream.below(256) as u8).collect()
            }
            _ => f32_bytes(&drawn(&input.name, shape.len())),
        };
        let buffer = client.buffer_from_host(&bytes, shape.dtype, shape.dims(), device);
        buffer.unwrap()
    };
    let inputs: Vec<_> = graph.inputs.iter().map(upload).collect();
    let arguments = inputs.iter().map(Arg::Borrow).collect();
    let run = compile(client, text).execute(vec![arguments]).unwrap();
    f32_values(&run.buffers[0][0].to_host().unwrap())
}

/// The mean of a picture's tokens but the first, each normalised, in f64.
fn mean_of_patches(tokens: &[f32]) -> Vec<f32> {
    let [gain, bias] =
        ["weight", "bias"].map(|name| drawn(&format!("base_encoder.norm.{name}"), DIM));
    let normalised = |token: &[f32]| -> Vec<f64> {
        let x: Vec<f64> = token.iter().map(|x| f64::from(*x)).collect();
        let mean = x.iter().sum::<f64>() / DIM as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DIM as f64;
        let one = |(i, x): (usize, &f64)| {
            (x - mean) / (variance + 1e-6).sqrt() * f64::from(gain[i]) + f64::from(bias[i])
        };
        x.iter().enumerate().map(one).collect()
    };
    let of_picture = |tokens: &[f32]| -> Vec<f32> {
        let patches: Vec<Vec<f64>> = tokens.chunks_exact(DIM).skip(1).map(normalised).collect();
        let mean = |i| patches.iter().map(|patch| patch[i]).sum::<f64>() / patches.len() as f64;
        (0..DIM).map(|i| mean(i) as f32).collect()
    };
    tokens
        .chunks_exact(tokens.len() / PICTURES)
        .flat_map(of_picture)
        .collect()
}

fn tap(blocks: usize, pool: Pool) -> Tap {
    Tap { blocks, pool }
}

/// Column `at` of features that stand side by side.
fn column(all: &[f32], at: usize, of: usize) -> Vec<f32> {
    let rows = all.chunks_exact(all.len() / PICTURES);
    rows.flat_map(|row| row.chunks_exact(row.len() / of).nth(at).unwrap().to_vec())
        .collect()
}

fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let apart = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    let far = expected.iter().fold(0.0f32, |far, x| far.max(x.abs()));
    assert!(apart <= 1e-5 * far, "{what}: {apart} of {far}");
}

/// After block N a model's class token through the final norm is the output of a
/// model of N blocks with the same variables; the mean over patch tokens, that of
/// a model of N blocks whose output is this mean; beside a class token, what plain
/// arithmetic makes of that model's tokens.
#[test]
fn features_of_a_layer_are_the_output_of_a_model_that_ends_there() {
    on_each_cpu_plugin(1, |plugin, client| {
        let taps = [
            tap(2, Pool::Class),
            tap(1, Pool::Class),
            tap(3, Pool::Class),
        ];
        let found = of(client, &config(3, "class"), Form::Taps(taps.to_vec()));
        for (at, tap) in taps.iter().enumerate() {
            let expected = of(client, &config(tap.blocks, "class"), Form::Plain);
            let what = format!("{plugin}: {tap}");
            same(&column(&found, at, taps.len()), &expected, &what);
        }
        let found = of(
            client,
            &config(3, "class"),
            Form::Taps(vec![tap(2, Pool::Mean)]),
        );
        let expected = mean_of_patches(&tokens(client, &config(2, "class")));
        same(
            &found,
            &expected,
            &format!("{plugin}: beside a class token"),
        );

        let taps = [tap(1, Pool::Mean), tap(3, Pool::Mean)];
        let found = of(client, &config(3, "norm_pool"), Form::Taps(taps.to_vec()));
        for (at, tap) in taps.iter().enumerate() {
            let expected = of(client, &config(tap.blocks, "norm_pool"), Form::Plain);
            let what = format!("{plugin}: {tap}");
            same(&column(&found, at, taps.len()), &expected, &what);
        }
    });
}

#[test]
fn places_that_a_model_does_not_have_are_refused() {
    let model = |blocks, output| config(blocks, output).model;
    for (tap, model, words) in [
        (tap(4, Pool::Class), model(3, "class"), "no layer 4"),
        (tap(2, Pool::Class), model(3, "norm_pool"), "no class token"),
    ] {
        let error = tap.check(&model).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let resnet = RunConfig::from_value(serde_json::json!({
        "batch": 64, "model": {"arch": "resnet50"},
        "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1}, "schedule": {"epochs": 10},
    }));
    let error = tap(1, Pool::Mean)
        .check(&resnet.unwrap().model)
        .unwrap_err();
    assert!(error.to_string().contains("a ViT's"), "{error}");
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

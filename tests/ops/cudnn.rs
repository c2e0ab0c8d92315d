//! cuDNN's attention as JAX writes it (tools/reference/attention_cudnn.py), and
//! on several devices each on its own rows.

use std::path::Path;

use serde_json::Value as Json;
use xla_moco::graph::ops::AttentionKernel;
use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Mesh, Result, Shape, Sharding, Value, emit};
use xla_moco::nn::{Mode, Site, Variables, attention, attention_by, attention_specs};
use xla_moco::rng::{Purpose, Stream};

use crate::array::Array;
use crate::run::Program;
use crate::support::on_each_cpu_plugin;

const FORWARD: &str = "__cudnn$fmhaSoftmax";
const BACKWARD: &str = "__cudnn$fmhaSoftmaxBackward";

/// Attention and its gradients, as text.
fn text(dims: &[usize], devices: usize) -> String {
    let b = Builder::new();
    let shape = Shape::new(DType::BF16, dims);
    let split = || Some(Sharding::split(4, 0));
    let [q, k, v, ct] = ["q", "k", "v", "ct"].map(|name| b.sharded_input(name, shape, split()));
    let y = b.attention(AttentionKernel::Cudnn, q, k, v).unwrap();
    let found = cotangents(&b, &[(y, ct)], &[q, k, v]).unwrap();
    b.sharded_output("y", y, split());
    for (name, ct) in ["dq", "dk", "dv"].into_iter().zip(found) {
        b.sharded_output(name, ct.unwrap(), split());
    }
    let mesh = (devices > 1).then(|| Mesh::data(devices));
    emit::stablehlo("attention", &b.finish().unwrap(), mesh.as_ref())
}

/// The line of a call, and the value of one of its attributes.
fn line<'a>(text: &'a str, target: &str) -> &'a str {
    let named = format!("call_target_name = \"{target}\"");
    let mut lines = text.lines().filter(|line| line.contains(&named));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {target} in {text}"));
    assert_eq!(lines.next(), None, "{target} stands twice");
    line
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = line
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {line}"));
    rest.split_once(after).unwrap().0
}

#[test]
fn the_calls_are_those_that_jax_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/attention_cudnn.json");
    let fixture: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let dims: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
        let text = text(&dims, 1);
        for target in [FORWARD, BACKWARD] {
            let (line, expected) = (line(&text, target), &case[target]);
            let config = between(line, "backend_config = \"", "\", operand_layouts");
            let config: Json = serde_json::from_str(&config.replace("\\\"", "\"")).unwrap();
            assert_eq!(config, expected["backend_config"], "{target} of {dims:?}");
            for (key, before, after) in [
                ("api_version", "api_version = ", ","),
                ("operand_layouts", "operand_layouts = ", ", result_layouts"),
                ("result_layouts", "result_layouts = ", "} : ("),
                ("operands", "} : (", ") -> ("),
                ("results", ") -> (", ") loc("),
            ] {
                let found = between(line, before, after);
                assert_eq!(expected[key], found, "{key} of {target} of {dims:?}");
            }
        }
    }
}

#[test]
fn each_of_several_devices_calls_it_on_its_own_rows() {
    let text = text(&[8, 17, 2, 16], 4);
    let local = line(&text, FORWARD);
    assert!(local.contains("tensor<2x17x2x16xbf16>"), "{local}");
    assert!(
        local.contains(r#"\"dimensions\": [\"2\", \"2\", \"17\", \"17\"]"#),
        "{local}"
    );
    assert_eq!(text.matches("sdy.manual_computation").count(), 2);
    assert_eq!(text.matches("sdy.return").count(), 2);
    let end = text
        .lines()
        .find(|line| line.contains("in_shardings = "))
        .unwrap();
    let rows = r#"<@mesh, [{"data"}, {}, {}, {}]>"#;
    for part in [
        &format!("in_shardings = #sdy.sharding_per_value<[{rows}, {rows}, {rows}]>"),
        r#"manual_axes = #sdy<manual_axes{"data"}>"#,
        r#"out_shardings = #sdy.sharding_per_value<["#,
        "-> (tensor<8x17x2x16xbf16>, tensor<8x2x17xf32>)",
    ] {
        assert!(end.contains(part), "{part} is not in {end}");
    }
}

#[test]
fn other_types_are_refused() {
    let b = Builder::new();
    let x = b.input("x", Shape::new(DType::F32, &[2, 3, 2, 8]));
    let error = b.attention(AttentionKernel::Cudnn, x, x, x).unwrap_err();
    assert!(error.to_string().contains("cuDNN's is of bf16"), "{error}");
}

/// Noise of a spread as that of a trained model's queries and keys.
fn noise(dims: &[usize], seed: u32) -> Array {
    let mut stream = Stream::new(3, Purpose::Test, (seed, 0));
    Array::from_fn(dims, |_| stream.normal())
}

/// The largest difference over the largest number.
fn apart(found: &Array, expected: &Array) -> f64 {
    let pairs = found.data.iter().zip(&expected.data);
    let largest = expected.data.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let worst = pairs.fold(0.0f64, |worst, (x, y)| {
        let apart = (x - y).abs();
        if apart.is_nan() {
            f64::INFINITY
        } else {
            worst.max(apart)
        }
    });
    worst / largest
}

type Layer = fn(&Site, Value, usize) -> Result<Value>;

/// A ViT's attention layer around the op, by its equations, is the plain layer:
/// its result and the gradients of tokens and weights.
#[test]
fn the_layer_around_the_op_is_the_plain_one() {
    let (batch, tokens, heads, dim) = (2, 5, 3, 24);
    on_each_cpu_plugin(1, |plugin, client| {
        let dims: Vec<Vec<usize>> = [vec![batch, tokens, dim], vec![batch, tokens, dim]]
            .into_iter()
            .chain(attention_specs(dim).into_iter().map(|spec| spec.dims))
            .collect();
        let inputs: Vec<Array> = (0..)
            .zip(&dims)
            .map(|(seed, dims)| noise(dims, seed))
            .collect();
        let layers: [Layer; 2] = [
            |site, x, heads| attention_by(site, x, heads, AttentionKernel::Equations),
            attention,
        ];
        let [found, expected] = layers.map(|layer| {
            let b = Builder::new();
            let input = |name: &str, dims: &[usize]| b.input(name, Shape::new(DType::F32, dims));
            let (x, ct) = (input("x", &dims[0]), input("ct", &dims[1]));
            let own = attention_specs(dim).into_iter().map(|spec| {
                let value = input(&spec.name, &spec.dims);
                (spec.name, value)
            });
            let own: Vec<(String, Value)> = own.collect();
            let mut wanted = vec![x];
            wanted.extend(own.iter().map(|(_, value)| *value));
            let variables = Variables::new(own);
            let site = Site::new(&b, &variables, DType::F32, Mode::Train);
            let y = layer(&site, x, heads).unwrap();
            let cts = cotangents(&b, &[(y, ct)], &wanted).unwrap();
            b.output("y", y);
            for (i, ct) in cts.into_iter().enumerate() {
                b.output(format!("ct.{i}"), ct.unwrap());
            }
            Program::new(client, &b.finish().unwrap()).call(&inputs)
        });
        assert_eq!(found.len(), 6);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let apart = apart(found, expected);
            assert!(apart < 1e-5, "{plugin}: result {i} differs by {apart}");
        }
    });
}

/// On a GPU (`XLA_MOCO_TEST_PJRT=gpu`): what cuDNN computes is what the equations
/// say, to 2e-2 in bf16.
#[test]
fn on_a_gpu_cudnns_attention_is_that_of_the_equations() {
    on_each_cpu_plugin(1, |plugin, client| {
        if client.platform_name() != "cuda" {
            eprintln!("skipped: {plugin} is not for NVIDIA's GPUs");
            return;
        }
        let dims = [4, 197, 12, 64];
        let inputs: Vec<Array> = (0..4).map(|seed| noise(&dims, seed)).collect();
        let [found, expected] =
            [AttentionKernel::Cudnn, AttentionKernel::Equations].map(|kernel| {
                let b = Builder::new();
                let shape = Shape::new(DType::BF16, &dims);
                let [q, k, v, ct] = ["q", "k", "v", "ct"].map(|name| b.input(name, shape));
                let y = b.attention(kernel, q, k, v).unwrap();
                let cts = cotangents(&b, &[(y, ct)], &[q, k, v]).unwrap();
                b.output("y", y);
                for (name, ct) in ["dq", "dk", "dv"].into_iter().zip(cts) {
                    b.output(name, ct.unwrap());
                }
                Program::new(client, &b.finish().unwrap()).call(&inputs)
            });
        for (what, (found, expected)) in ["y", "dq", "dk", "dv"]
            .into_iter()
            .zip(found.iter().zip(&expected))
        {
            let apart = apart(found, expected);
            assert!(apart < 2e-2, "{what} differs by {apart}");
        }
    });
}

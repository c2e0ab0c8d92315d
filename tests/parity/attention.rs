//! The class token's attention against the ViT's equations in plain loops, which
//! are themselves held against PyTorch's features of the same pictures.

use serde_json::json;
use xla_moco::config::RunConfig;
use xla_moco::graph::{Builder, DType};
use xla_moco::models::vit::class_weights;
use xla_moco::nn::{Mode, Site, Variables};
use xla_moco::programs;

use crate::fixture::{Program, Tensors, client, declare, read};
use crate::vit::config;

// The fixture's model.
const BLOCKS: usize = 2;
const DIM: usize = 24;
const HEADS: usize = 3;
const PATCH: usize = 4;
const SIDE: usize = 16;
const GRID: usize = SIDE / PATCH;
const TOKENS: usize = 1 + GRID * GRID;

type Rows = Vec<Vec<f64>>;

struct Vit<'a>(&'a Tensors);

impl Vit<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        self.0[name].values()
    }

    /// y = W x + b for each row, W as [out, in].
    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let out = |row: &Vec<f64>| {
            let each = weight.chunks(row.len()).zip(&bias);
            each.map(|(w, b)| b + dot(w, row)).collect()
        };
        x.iter().map(out).collect()
    }

    fn layer_norm(&self, name: &str, x: &Rows) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let norm = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scale = (variance + 1e-6).sqrt();
            let each = row.iter().zip(weight.iter().zip(&bias));
            each.map(|(x, (w, b))| (x - mean) / scale * w + b).collect()
        };
        x.iter().map(norm).collect()
    }

    /// Tokens of a picture [3, S, S].
    fn embed(&self, picture: &[f64]) -> Rows {
        let weight = self.values("patch_embed.proj.weight");
        let bias = self.values("patch_embed.proj.bias");
        let positions = self.values("pos_embed");
        let mut tokens = vec![self.values("cls_token")];
        for place in 0..GRID * GRID {
            let (top, left) = (place / GRID * PATCH, place % GRID * PATCH);
            let mut pixels = Vec::new();
            for channel in 0..3 {
                for y in 0..PATCH {
                    for x in 0..PATCH {
                        pixels.push(picture[(channel * SIDE + top + y) * SIDE + left + x]);
                    }
                }
            }
            let filters = weight.chunks(pixels.len()).zip(&bias);
            tokens.push(filters.map(|(w, b)| b + dot(w, &pixels)).collect());
        }
        for (token, position) in tokens.iter_mut().zip(positions.chunks(DIM)) {
            token.iter_mut().zip(position).for_each(|(x, p)| *x += p);
        }
        tokens
    }

    /// What attention makes of tokens, and its weights [head][asking][asked].
    fn attention(&self, name: &str, x: &Rows) -> (Rows, Vec<Rows>) {
        let qkv = self.linear(&format!("{name}.qkv"), x);
        let width = DIM / HEADS;
        let mut out = vec![vec![0.0; DIM]; x.len()];
        let mut weights = Vec::new();
        for head in 0..HEADS {
            let part = |row: usize, which: usize| &qkv[row][which * DIM + head * width..][..width];
            let row = |asking: usize| {
                let score =
                    |asked: usize| dot(part(asking, 0), part(asked, 1)) / (width as f64).sqrt();
                let e: Vec<f64> = (0..x.len()).map(|asked| score(asked).exp()).collect();
                let sum: f64 = e.iter().sum();
                e.iter().map(|e| e / sum).collect::<Vec<f64>>()
            };
            let of_head: Rows = (0..x.len()).map(row).collect();
            for (asking, row) in of_head.iter().enumerate() {
                for (asked, weight) in row.iter().enumerate() {
                    for (i, v) in part(asked, 2).iter().enumerate() {
                        out[asking][head * width + i] += weight * v;
                    }
                }
            }
            weights.push(of_head);
        }
        (self.linear(&format!("{name}.proj"), &out), weights)
    }

    /// The features, and the weights of the last block.
    fn forward(&self, picture: &[f64]) -> (Vec<f64>, Vec<Rows>) {
        let mut x = self.embed(picture);
        let mut weights = Vec::new();
        for block in 0..BLOCKS {
            let name = |part: &str| format!("blocks.{block}.{part}");
            let (y, found) = self.attention(&name("attn"), &self.layer_norm(&name("norm1"), &x));
            add(&mut x, &y);
            weights = found;
            let mut hidden = self.linear(&name("mlp.fc1"), &self.layer_norm(&name("norm2"), &x));
            for h in hidden.iter_mut().flatten() {
                *h *= 0.5 * (1.0 + erf(*h / std::f64::consts::SQRT_2));
            }
            add(&mut x, &self.linear(&name("mlp.fc2"), &hidden));
        }
        (self.layer_norm("norm", &x).remove(0), weights)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut Rows, y: &Rows) {
    for (x, y) in x.iter_mut().zip(y) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

/// Its Taylor series, which is exact enough where activations are.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn the_class_tokens_weights_are_those_of_the_equations() {
    let mut tensors = read("vit.safetensors");
    let features = tensors["y"].values();
    tensors.retain(|name, _| name != "y" && name != "ct" && !name.starts_with("grad."));
    let b = Builder::new();
    let inputs = declare(&b, &tensors);
    let variables = Variables::new(inputs.clone());
    let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate);
    let config = config();
    let weights = class_weights(&site, config.model.vit().unwrap(), inputs["x"]).unwrap();
    b.output("weights", weights);
    let found = Program::new(&client(), b.finish().unwrap()).call(&tensors);
    let found = &found["weights"];

    let vit = Vit(&tensors);
    let pictures = tensors["x"].values();
    let pictures = pictures.chunks(3 * SIDE * SIDE);
    assert_eq!(found.shape.dims(), [pictures.len(), HEADS, TOKENS]);
    let found = found.values();
    let rows = found.chunks(HEADS * TOKENS).zip(features.chunks(DIM));
    for (i, (picture, (found, features))) in pictures.zip(rows).enumerate() {
        let (y, expected) = vit.forward(picture);
        for (ours, theirs) in y.iter().zip(features) {
            assert!(
                (ours - theirs).abs() < 1e-4,
                "picture {i}: {ours} for {theirs}"
            );
        }
        for (head, found) in found.chunks(TOKENS).enumerate() {
            let sum: f64 = found.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "picture {i}, head {head}: {sum}");
            for (token, (found, wanted)) in found.iter().zip(&expected[head][0]).enumerate() {
                let off = (found - wanted).abs();
                assert!(off < 1e-5, "picture {i}, head {head}, token {token}: {off}");
            }
        }
    }
}

#[test]
fn what_has_no_class_token_has_no_such_program() {
    for (model, words) in [
        (
            json!({"arch": "resnet18", "image_size": 32}),
            "no attention",
        ),
        (
            json!({"arch": "vit", "blocks": 1, "dim": 16, "heads": 2, "patch": 8, "image_size": 16, "output": "norm_pool"}),
            "no class token",
        ),
    ] {
        let config = RunConfig::from_value(json!({
            "batch": 8, "model": model, "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"epochs": 1},
        }))
        .unwrap();
        let error = programs::attention::build(&config, 1)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

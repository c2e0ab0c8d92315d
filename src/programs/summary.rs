//! What a configuration's model consists of: parameters and multiply-adds of
//! each part.

use crate::config::{Head, RunConfig};
use crate::graph::block::Lowering;
use crate::graph::{Builder, DType, Graph, Result, Shape, cost};
use crate::methods;
use crate::models::head;
use crate::models::vit::{self, Trunk};
use crate::nn::{Mode, Role, Site, Spec, Variables, under};

/// A part of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Numbers that are learned or fixed; running statistics do not count.
    pub parameters: usize,
    /// Multiplications with an addition, for one picture forward: of matrix
    /// products alone, as papers count them.
    pub multiply_adds: u64,
}

/// The model, part by part.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Add up to `backbone`.
    pub parts: Vec<Part>,
    pub backbone: Part,
    /// The backbone as classification papers count it: with a linear layer to
    /// 1000 classes (Table 2).
    pub classifier: Part,
    pub projector: Part,
    pub predictor: Part,
    /// Encoders, predictor and whatever else the method has.
    pub all: Part,
}

/// Counts from the variables' shapes and from the graph of one picture.
pub fn summary(config: &RunConfig) -> Result<Summary> {
    let scopes = cost::by_scope(&backbone(config)?, 3);
    let specs = methods::specs(config);
    let specs: Vec<&Spec> = specs.iter().filter(|s| s.role != Role::Buffer).collect();
    let blocks = config.model.blocks;
    let mut parts = Vec::new();
    for (name, kind) in [
        ("patch embedding".to_owned(), Kind::Patches),
        ("class token, positions".to_owned(), Kind::Tokens),
        (format!("attention of {blocks} blocks"), Kind::Attention),
        (format!("MLPs of {blocks} blocks"), Kind::Mlp),
        ("norms".to_owned(), Kind::Norm),
    ] {
        let of_backbone = |name: &str| {
            name.strip_prefix("base_encoder.")
                .filter(|rest| !rest.starts_with("head."))
                .is_some_and(|rest| Kind::of(rest.split('.')) == kind)
        };
        let of_scope = |path: &str| {
            // Scopes join a block's number to its name by the same dot.
            let rest = path.strip_prefix("base_encoder/");
            rest.is_some_and(|rest| Kind::of(rest.split(['/', '.'])) == kind)
        };
        let flops = scopes.iter().filter(|(path, _)| of_scope(path));
        parts.push(Part {
            name,
            parameters: count(specs.iter().filter(|s| of_backbone(&s.name)).copied()),
            multiply_adds: flops.map(|(_, cost)| cost.matmul_flops).sum::<u64>() / 2,
        });
    }
    let backbone = sum("backbone", &parts.iter().collect::<Vec<_>>());
    let dim = config.model.dim;
    let method = &config.method;
    let projector = head_part("projector", &method.projector, dim)?;
    let predictor = head_part("predictor", &method.predictor, method.projector.out)?;
    let mut all = vec![&backbone, &projector, &predictor];
    let mut name = "encoder, all heads";
    if method.name.has_momentum_encoder() {
        all.extend([&backbone, &projector]);
        name = "both encoders, predictor";
    }
    let one_layer = Part {
        name: String::new(),
        parameters: 1000 * (dim + 1),
        multiply_adds: 1000 * dim as u64,
    };
    Ok(Summary {
        classifier: sum("backbone with 1000 classes", &[&backbone, &one_layer]),
        all: Part {
            parameters: count(specs.iter().copied()),
            ..sum(name, &all)
        },
        parts,
        backbone,
        projector,
        predictor,
    })
}

/// All tokens of one picture through all blocks, as papers count a backbone;
/// our programs make the class token only in the last block.
fn backbone(config: &RunConfig) -> Result<Graph> {
    let b = Builder::new();
    let specs = under("base_encoder", vit::specs(&config.model));
    let variables = variables(&b, specs.collect());
    let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate);
    let side = config.model.image_size;
    let x = b.input("x", Shape::new(DType::F32, &[1, 3, side, side]));
    let trunk = Trunk {
        lowering: Lowering::Unrolled,
        differentiable: false,
    };
    let tokens = vit::tokens(&site.at("base_encoder"), &config.model, trunk, x)?;
    b.output("tokens", tokens);
    b.finish()
}

fn variables(b: &Builder, specs: Vec<Spec>) -> Variables {
    Variables::new(specs.into_iter().map(|spec| {
        let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
        (spec.name, value)
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Patches,
    Tokens,
    Attention,
    Mlp,
    Norm,
}

impl Kind {
    /// The kind of `blocks.3.attn.qkv.weight`, or of a scope of such parts.
    fn of<'a>(mut path: impl Iterator<Item = &'a str>) -> Self {
        let mut next = || path.next().unwrap_or_default();
        match next() {
            "patch_embed" => Self::Patches,
            "cls_token" | "pos_embed" | "embed" => Self::Tokens,
            "blocks" => {
                next();
                match next() {
                    "attn" => Self::Attention,
                    "mlp" => Self::Mlp,
                    _ => Self::Norm,
                }
            }
            _ => Self::Norm,
        }
    }
}

fn count<'a>(specs: impl Iterator<Item = &'a Spec>) -> usize {
    specs
        .filter(|s| s.role != Role::Buffer)
        .map(Spec::elements)
        .sum()
}

fn sum(name: &str, parts: &[&Part]) -> Part {
    Part {
        name: name.to_owned(),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        multiply_adds: parts.iter().map(|part| part.multiply_adds).sum(),
    }
}

fn head_part(name: &str, config: &Head, inputs: usize) -> Result<Part> {
    let specs = head::specs(config, inputs);
    let b = Builder::new();
    let variables = variables(&b, specs.clone());
    let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate);
    let x = b.input("x", Shape::new(DType::F32, &[1, inputs]));
    let y = head::head(&site, config, x)?;
    b.output("y", y);
    Ok(Part {
        name: name.to_owned(),
        parameters: count(specs.iter()),
        multiply_adds: cost::matmul_flops(&b.finish()?) / 2,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(arch: &str, patch: usize) -> Summary {
        let config = RunConfig::from_value(json!({
            "batch": 64,
            "model": {"arch": arch, "patch": patch, "image_size": 224},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"epochs": 10}
        }));
        let config = config.unwrap();
        summary(&config).unwrap()
    }

    /// The public code's counts, and Table 2's multiply-adds in G. The paper
    /// does not say what its numbers leave out, so these to 1%.
    #[test]
    fn counts_are_those_of_the_paper_and_the_public_code() {
        for (arch, patch, classifier, all, giga) in [
            ("vit_small", 16, 22_050_664, Some(84_266_752), 4.6),
            ("vit_base", 16, 86_567_656, Some(215_678_464), 17.5),
            ("vit_large", 16, 304_326_632, Some(652_781_568), 61.3),
            ("vit_huge", 14, 632_045_800, None, 166.7),
        ] {
            let found = of(arch, patch);
            assert_eq!(found.classifier.parameters, classifier, "{arch}");
            if let Some(all) = all {
                assert_eq!(found.all.parameters, all, "{arch}");
            }
            let flops = found.classifier.multiply_adds as f64 / 1e9;
            assert!((flops / giga - 1.0).abs() < 0.01, "{arch}: {flops} G");
        }
    }

    /// By hand for S/16: 196 patches of 768 numbers, 197 tokens.
    #[test]
    fn parts_are_what_their_layers_say() {
        let found = of("vit_small", 16);
        let parts: Vec<(usize, u64)> = found
            .parts
            .iter()
            .map(|part| (part.parameters, part.multiply_adds))
            .collect();
        let (d, t) = (384, 197);
        let attention = 4 * d * d + 4 * d;
        let products = t as u64 * 4 * (d * d) as u64 + 2 * (t * t * d) as u64;
        let mlp = 8 * d * d + 5 * d;
        assert_eq!(
            parts,
            [
                (768 * d + d, 196 * 768 * d as u64),
                (d + t * d, 0),
                (12 * attention, 12 * products),
                (12 * mlp, 12 * (t * 8 * d * d) as u64),
                (12 * 4 * d + 2 * d, 0),
            ]
        );
        assert_eq!(found.projector.parameters, 19_415_040);
        assert_eq!(found.projector.multiply_adds, 4096 * (384 + 4096 + 256));
        assert_eq!(found.predictor.parameters, 2_105_344);
    }
}

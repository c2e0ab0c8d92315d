//! What a configuration's model consists of: parameters and multiply-adds of
//! each part.

use crate::config::{Backbone, Head, Model, RunConfig};
use crate::graph::{Builder, DType, Graph, Result, Shape, cost};
use crate::methods;
use crate::models::{self, Trunk, head, projector_name, resnet, vit};
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
    let model = &config.model;
    let projector_prefix = format!("{}.", projector_name(model));
    let mut parts = Vec::new();
    for (i, name) in part_names(model).into_iter().enumerate() {
        let of_backbone = |name: &str| {
            name.strip_prefix("base_encoder.")
                .filter(|rest| !rest.starts_with(&projector_prefix))
                .is_some_and(|rest| part_of(model, rest.split('.')) == i)
        };
        let of_scope = |path: &str| {
            // Scopes join a block's number to its name by the same dot.
            let rest = path.strip_prefix("base_encoder/");
            rest.is_some_and(|rest| part_of(model, rest.split(['/', '.'])) == i)
        };
        let flops = scopes.iter().filter(|(path, _)| of_scope(path));
        parts.push(Part {
            name,
            parameters: count(specs.iter().filter(|s| of_backbone(&s.name)).copied()),
            multiply_adds: flops.map(|(_, cost)| cost.matmul_flops).sum::<u64>() / 2,
        });
    }
    let backbone = sum("backbone", &parts.iter().collect::<Vec<_>>());
    let dim = model.features();
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

/// One picture through the backbone, as papers count it: all tokens of a ViT
/// through all blocks, where our programs make the class token only in the last.
fn backbone(config: &RunConfig) -> Result<Graph> {
    let b = Builder::new();
    let specs = under("base_encoder", models::specs(&config.model));
    let variables = variables(&b, specs.collect());
    let site = Site::new(&b, &variables, DType::F32, Mode::Evaluate).at("base_encoder");
    let side = config.model.image_size;
    let x = b.input("x", Shape::new(DType::F32, &[1, 3, side, side]));
    let y = match &config.model.backbone {
        Backbone::Vit(config) => vit::tokens(&site, config, Trunk::PLAIN, x)?,
        Backbone::ResNet(config) => resnet::resnet(&site, config, Trunk::PLAIN, x)?,
    };
    b.output("y", y);
    b.finish()
}

fn variables(b: &Builder, specs: Vec<Spec>) -> Variables {
    Variables::new(specs.into_iter().map(|spec| {
        let value = b.input(&spec.name, Shape::new(DType::F32, &spec.dims));
        (spec.name, value)
    }))
}

/// The parts of a backbone.
fn part_names(model: &Model) -> Vec<String> {
    match &model.backbone {
        Backbone::Vit(vit) => vec![
            "patch embedding".to_owned(),
            "class token, positions".to_owned(),
            format!("attention of {} blocks", vit.blocks),
            format!("MLPs of {} blocks", vit.blocks),
            "norms".to_owned(),
        ],
        Backbone::ResNet(net) => {
            let stage = |(i, blocks): (usize, &usize)| format!("stage {}, {blocks} blocks", i + 1);
            let stages = net.stages.iter().enumerate().map(stage);
            std::iter::once("stem".to_owned()).chain(stages).collect()
        }
    }
}

/// Which of [`part_names`] holds `blocks.3.attn.qkv.weight` or
/// `layer2.0.conv1.weight`, or a scope of such parts.
fn part_of<'a>(model: &Model, mut path: impl Iterator<Item = &'a str>) -> usize {
    let mut next = || path.next().unwrap_or_default();
    let first = next();
    if let Backbone::ResNet(_) = model.backbone {
        let stage = first.strip_prefix("layer").map(str::parse);
        return stage.and_then(std::result::Result::ok).unwrap_or(0);
    }
    match first {
        "patch_embed" => 0,
        "cls_token" | "pos_embed" | "embed" => 1,
        "blocks" => {
            next();
            match next() {
                "attn" => 2,
                "mlp" => 3,
                _ => 4,
            }
        }
        _ => 4,
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

    fn of(model: serde_json::Value) -> Summary {
        let config = RunConfig::from_value(json!({
            "batch": 64,
            "model": model,
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
        for (arch, classifier, all, giga) in [
            ("vit_small", 22_050_664, Some(84_266_752), 4.6),
            ("vit_base", 86_567_656, Some(215_678_464), 17.5),
            ("vit_large", 304_326_632, Some(652_781_568), 61.3),
            ("vit_huge", 632_045_800, None, 166.7),
            // torchvision's count of its ResNet-50.
            ("resnet50", 25_557_032, Some(68_012_160), 4.1),
        ] {
            let found = of(json!({"arch": arch}));
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
        let found = of(json!({"arch": "vit_small"}));
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

    /// Table 1: a patch of 7 and BN leave the model's size as it is but for the
    /// patch projection and the table of positions; Sec. 6.3: about 6 times the
    /// arithmetic at /7.
    #[test]
    fn variants_of_a_vit_are_about_as_large() {
        let plain = of(json!({"arch": "vit_large"})).backbone;
        let bn = of(json!({"arch": "vit_large", "mlp_norm": "batch"})).backbone;
        assert_eq!(bn, plain);
        let fine = of(json!({"arch": "vit_large", "patch": 7})).backbone;
        let (rows, inputs) = (1024 * 196, 3 * 1024 * 49);
        let (fine_rows, fine_inputs) = (1024 * (32 * 32), 3 * 1024 * 256);
        assert_eq!(
            fine.parameters + rows + fine_inputs,
            plain.parameters + fine_rows + inputs
        );
        let times = fine.multiply_adds as f64 / plain.multiply_adds as f64;
        assert!((5.5..6.5).contains(&times), "{times}");
    }

    /// torchvision's counts, and by hand for what else there is.
    #[test]
    fn other_backbones_have_the_parameters_of_their_layers() {
        let count = |model| of(model).backbone.parameters;
        let classes = |features: usize| 1000 * (features + 1);
        assert_eq!(
            count(json!({"arch": "resnet18"})) + classes(512),
            11_689_512
        );
        let deep = json!({"arch": "resnet", "block": "bottleneck", "stages": [3, 4, 23, 3]});
        assert_eq!(count(deep) + classes(2048), 44_549_160);
        let (plain, d) = (count(json!({"arch": "vit_small"})), 384);
        let without = |key: &str, value: &str| count(json!({"arch": "vit_small", key: value}));
        assert_eq!(without("position", "none"), plain - 197 * d);
        assert_eq!(without("position", "learned"), plain);
        assert_eq!(without("output", "norm_pool"), plain - 2 * d);
        assert_eq!(without("output", "pool"), plain - 4 * d);
        assert_eq!(without("patch_projection", "batch_norm"), plain + 2 * d);
        assert_eq!(without("patch_projection", "weight_norm"), plain + d);
        let conv = 27 * 48 + 9 * (48 * 96 + 96 * 192 + 192 * 384) + 2 * (48 + 96 + 192 + 384);
        let stem = conv + d * d + d;
        let block = 12 * d * d + 13 * d;
        assert_eq!(
            count(json!({"arch": "vit_conv_small"})),
            plain - block - (768 * d + d) + stem
        );
    }
}

//! What a backbone's tensors tell of its model, and what they do not.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::names::Layout;
use crate::bad_input;
use crate::config::{Backbone, RunConfig};
use crate::models;

/// What weights do not say, as far as something else does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    pub heads: Option<usize>,
    /// Side of a picture, pixels.
    pub image_size: Option<usize>,
    pub mean: Option<[f64; 3]>,
    pub std: Option<[f64; 3]>,
}

/// Shapes by our names of a backbone's tensors.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// The heads that the authors' models have, by their `arch`. Not those of
/// timm's models of the same names.
pub fn heads_of_arch(arch: &str) -> Option<usize> {
    match arch {
        "vit_small" | "vit_base" | "vit_conv_small" | "vit_conv_base" => Some(12),
        "vit_large" | "vit_huge" => Some(16),
        _ => None,
    }
}

/// The `model` section of a configuration for these tensors, in f32.
///
/// # Errors
/// [`bad_input!`] for what is neither a ViT nor a ResNet of ours, and where the
/// number of heads is not known.
pub fn model(shapes: &Shapes, layout: Layout, hints: &Hints) -> Result<Json> {
    if shapes.contains_key("conv1.weight") && shapes.contains_key("bn1.weight") {
        return resnet(shapes, hints);
    }
    if dims(shapes, "blocks.0.attn.qkv.weight").is_some() {
        return vit(shapes, layout, hints);
    }
    let some: Vec<&str> = shapes.keys().take(5).map(String::as_str).collect();
    Err(bad_input!(
        "in the {} layout it has neither a ViT (blocks.0.attn.qkv.weight) nor a ResNet \
         (conv1.weight, bn1.weight); it has {} tensors, such as {}. Is --from the right one?",
        layout.name(),
        shapes.len(),
        some.join(", ")
    ))
}

fn dims<'a>(shapes: &'a Shapes, name: &str) -> Option<&'a [usize]> {
    shapes.get(name).map(Vec::as_slice)
}

fn vit(shapes: &Shapes, layout: Layout, hints: &Hints) -> Result<Json> {
    let has = |name: &str| shapes.contains_key(name);
    let shape = |name: &str| {
        dims(shapes, name).ok_or_else(|| bad_input!("it has no tensor {name}, as a ViT needs"))
    };
    let unlike = |name: &str, found: &[usize], expected: &str| {
        bad_input!("its tensor {name} is {found:?}; expected {expected}")
    };
    let qkv = shape("blocks.0.attn.qkv.weight")?;
    let [_, dim] = *qkv else {
        return Err(unlike("blocks.0.attn.qkv.weight", qkv, "[3 dim, dim]"));
    };
    let fc1 = shape("blocks.0.mlp.fc1.weight")?;
    let mlp_ratio = match *fc1 {
        [hidden, of] if of == dim && dim > 0 && hidden.is_multiple_of(dim) => hidden / dim,
        _ => return Err(unlike("blocks.0.mlp.fc1.weight", fc1, "[ratio dim, dim]")),
    };
    let blocks = count(shapes, "blocks.");
    let class = has("cls_token");
    let stem = (0..16).find(|i| {
        // The last convolution of a stem is the one with a bias.
        has("patch_embed.proj.0.weight")
            && has(&format!("patch_embed.proj.{}.bias", 3 * i))
            && dims(shapes, &format!("patch_embed.proj.{}.weight", 3 * i))
                .is_some_and(|d| matches!(d, [_, _, 1, 1]))
    });
    let filter = |name: &str| match shape(name)? {
        [_, _, rows, columns] if rows == columns => anyhow::Ok(*rows),
        other => Err(unlike(name, other, "[dim, 3, patch, patch]")),
    };
    let (projection, patch) = match stem {
        Some(halvings) => ("conv_stem", 1 << halvings),
        None if has("patch_embed.proj.weight_v") => {
            ("weight_norm", filter("patch_embed.proj.weight_v")?)
        }
        None => {
            let patch = filter("patch_embed.proj.weight")?;
            match layout {
                _ if has("patch_embed.norm.running_mean") => ("batch_norm", patch),
                // All ViT recipes of the paper freeze it; weights do not tell.
                Layout::MocoV3 => ("frozen", patch),
                _ => ("learned", patch),
            }
        }
    };
    let image_size = match dims(shapes, "pos_embed") {
        None => hints.image_size.unwrap_or(224),
        Some([1, tokens, _]) => {
            let patches = tokens.saturating_sub(usize::from(class));
            let side = patches.isqrt();
            if side * side != patches {
                return Err(bad_input!(
                    "its pos_embed has {tokens} tokens{}: not those of a square picture",
                    if class {
                        ", one of them the class's"
                    } else {
                        ""
                    }
                ));
            }
            side.saturating_mul(patch)
        }
        Some(other) => return Err(unlike("pos_embed", other, "[1, tokens, dim]")),
    };
    if let Some(given) = hints.image_size
        && given != image_size
    {
        return Err(bad_input!(
            "its position embedding is of pictures of {image_size} px, and {given} px are asked \
             for: positions are not interpolated here"
        ));
    }
    let known = layout.heads(dim);
    let heads = hints.heads.or(known).ok_or_else(|| {
        bad_input!(
            "the number of attention heads is not in the weights, and a wrong one gives wrong \
             features without any error: give --heads. For a width of {dim}: {}",
            match dim {
                384 => "12 in the authors' MoCo v3, 6 in timm, DeiT and DINO".to_owned(),
                1024 | 1280 => "16 is usual".to_owned(),
                _ => format!("{} is usual", (dim / 64).max(1)),
            }
        )
    })?;
    let output = match (class, has("norm.weight")) {
        (true, _) => "class",
        (false, true) => "norm_pool",
        (false, false) => "pool",
    };
    Ok(json!({
        "arch": "vit",
        "blocks": blocks,
        "dim": dim,
        "heads": heads,
        "mlp_ratio": mlp_ratio,
        "mlp_norm": if has("blocks.0.norm2.running_mean") { "batch" } else { "layer" },
        "patch": patch,
        "patch_projection": projection,
        // Whether it is the sines' is found when their values are read.
        "position": if has("pos_embed") { "learned" } else { "none" },
        "output": output,
        "image_size": image_size,
        "compute_dtype": "f32",
    }))
}

fn resnet(shapes: &Shapes, hints: &Hints) -> Result<Json> {
    let conv1 = dims(shapes, "conv1.weight").unwrap_or_default();
    let (width, stem) = match *conv1 {
        [width, 3, 7, 7] => (width, "7x7"),
        [width, 3, 3, 3] => (width, "3x3"),
        _ => {
            return Err(bad_input!(
                "its tensor conv1.weight is {conv1:?}; expected [width, 3, 7, 7] or \
                 [width, 3, 3, 3]"
            ));
        }
    };
    let stages: Vec<usize> = (1..=8)
        .map(|stage| count(shapes, &format!("layer{stage}.")))
        .take_while(|blocks| *blocks > 0)
        .collect();
    let deep = shapes.contains_key("layer1.0.conv3.weight");
    let usual = if stem == "7x7" { 224 } else { 32 };
    Ok(json!({
        "arch": "resnet",
        "block": if deep { "bottleneck" } else { "basic" },
        "stages": stages,
        "width": width,
        "stem": stem,
        "image_size": hints.image_size.unwrap_or(usual),
        "compute_dtype": "f32",
    }))
}

/// One more than the largest number right after a prefix.
fn count(shapes: &Shapes, prefix: &str) -> usize {
    let numbers = shapes.keys().filter_map(|name| {
        let (number, _) = name.strip_prefix(prefix)?.split_once('.')?;
        number.parse::<usize>().ok().filter(|number| *number < 4096)
    });
    numbers.max().map_or(0, |last| last + 1)
}

/// A whole configuration with this model: where nothing else is said, the
/// paper's ViT recipe.
///
/// # Errors
/// [`bad_input!`] for a model that is not one of ours.
pub fn config(model: &Json, method: &Json, augment: &Json, about: &Json) -> Result<RunConfig> {
    let config = RunConfig::from_value(json!({
        "about": about,
        "batch": 4096,
        "model": model,
        "method": method,
        "optimizer": {"name": "adamw", "base_lr": 1.5e-4, "weight_decay": 0.1},
        "schedule": {"epochs": 300, "warmup_epochs": 40},
        "augment": augment,
    }));
    config.context("the model that these weights are of")
}

/// The `method` section for heads of these shapes, by our full names.
pub fn method(config: &RunConfig, beside: &Shapes) -> Json {
    let encoder = format!("base_encoder.{}.", models::projector_name(&config.model));
    let mut method = json!({"name": "moco_v3"});
    for (key, prefix) in [("projector", encoder.as_str()), ("predictor", "predictor.")] {
        if let Some(head) = head(beside, prefix) {
            method[key] = head;
        }
    }
    method
}

/// A head's section by its tensors: linear layers at 0, 3, .., a norm after
/// each, or not.
fn head(shapes: &Shapes, prefix: &str) -> Option<Json> {
    let linear = |i: usize| dims(shapes, &format!("{prefix}{}.weight", 3 * i));
    let norm = |i: usize| shapes.contains_key(&format!("{prefix}{}.running_mean", 3 * i + 1));
    let layers = (0..16).take_while(|i| linear(*i).is_some()).count();
    let last = layers.checked_sub(1)?;
    Some(json!({
        "layers": layers,
        "hidden": linear(0)?.first()?,
        "out": linear(last)?.first()?,
        "norm": match (norm(last), last > 0 && norm(0)) {
            (true, _) => "all",
            (false, true) => "hidden",
            (false, false) => "none",
        },
    }))
}

/// Heads of a ViT; none for a ResNet.
pub fn heads(config: &RunConfig) -> Option<usize> {
    match &config.model.backbone {
        Backbone::Vit(vit) => Some(vit.heads),
        Backbone::ResNet(_) => None,
    }
}

//! Backbones and heads.
//!
//! A backbone takes normalised pictures [B, 3, S, S] to features [B, D] with D
//! = [`Model::features`], in the compute type.

mod body;
mod conv_stem;
pub mod head;
pub mod resnet;
mod tap;
pub mod vit;

pub use tap::{Pool, Tap};

use crate::bad_input;
use crate::config::{Backbone, ComputeDtype, MlpNorm, Model, Output, RunConfig, word};
use crate::graph::block::Lowering;
use crate::graph::{DType, GraphError, Result, Value};
use crate::nn::{Site, Spec};

/// The type of activations and matrix products.
pub fn compute_dtype(config: ComputeDtype) -> DType {
    match config {
        ComputeDtype::Bf16 => DType::BF16,
        ComputeDtype::F32 => DType::F32,
    }
}

/// How a backbone becomes ops.
#[derive(Clone, Copy, Debug)]
pub struct Trunk {
    pub lowering: Lowering,
    /// Whether gradients of it will be asked for.
    pub differentiable: bool,
    /// So many views of each picture stand side by side in the batch, and BN
    /// has statistics of each by itself; 1: of the batch as it is.
    pub views: usize,
    /// Whether samples skip branches: a block finds by how much to scale those
    /// of each sample in its variables (`attn.drop_path` and `mlp.drop_path`, [B]).
    pub drop_path: bool,
}

impl Trunk {
    /// For features that nothing is learned from.
    pub const PLAIN: Self = Self {
        lowering: Lowering::Unrolled,
        differentiable: false,
        views: 1,
        drop_path: false,
    };

    /// Whether a block's inner values are computed again for the gradient.
    fn recomputes(self) -> bool {
        self.differentiable && self.lowering.recomputes_blocks()
    }
}

/// A backbone's variables under the names of timm and torchvision.
pub fn specs(model: &Model) -> Vec<Spec> {
    match &model.backbone {
        Backbone::Vit(vit) => vit::specs(vit, model.image_size),
        Backbone::ResNet(net) => resnet::specs(net),
    }
}

/// Normalised pictures [B, 3, S, S] to features [B, D]. In training, BN leaves
/// new running statistics in the variables.
pub fn backbone(site: &Site, model: &Model, trunk: Trunk, x: Value) -> Result<Value> {
    match &model.backbone {
        Backbone::Vit(config) => vit::vit(site, config, trunk, x),
        Backbone::ResNet(config) => resnet::resnet(site, config, trunk, x),
    }
}

/// Normalised pictures [B, 3, S, S] to features at some places, side by side,
/// [B, taps * dim].
///
/// # Errors
/// For a ResNet, and for a place that a ViT does not have ([`Tap::check`]).
pub fn tapped(site: &Site, model: &Model, trunk: Trunk, taps: &[Tap], x: Value) -> Result<Value> {
    match &model.backbone {
        Backbone::Vit(config) => vit::taps(site, config, trunk, taps, x),
        Backbone::ResNet(_) => Err(GraphError::Invalid("a ResNet has no taps".into())),
    }
}

/// Why a backbone has no class token whose attention could be looked at, in
/// words; none where it has one.
pub fn without_class_token(model: &Model) -> Option<&'static str> {
    match &model.backbone {
        Backbone::ResNet(_) => Some("a ResNet has no attention"),
        Backbone::Vit(vit) if vit.output != Output::Class => {
            Some("this ViT has no class token: its features are the mean of all patches'")
        }
        Backbone::Vit(_) => None,
    }
}

/// The name of the projector in the encoder: that of the layer of the public
/// code's backbone whose place it takes.
pub fn projector_name(model: &Model) -> &'static str {
    match &model.backbone {
        Backbone::Vit(_) => "head",
        Backbone::ResNet(_) => "fc",
    }
}

/// Blocks whose branches can be skipped: a ViT's.
pub fn blocks(model: &Model) -> usize {
    model.vit().map_or(0, |vit| vit.blocks)
}

/// The factor of a parameter's learning rate where each layer's is `decay`
/// times that of the next one: 1 of the head and the final norm, `decay` of the
/// last block, `decay^(blocks + 1)` of what comes before the first.
pub fn layer_lr_scale(model: &Model, parameter: &str, decay: f64) -> f64 {
    let name = parameter.strip_prefix("base_encoder.").unwrap_or(parameter);
    let above = blocks(model) + 1;
    let first = name.split('.').next().unwrap_or_default();
    let layer = match first {
        "cls_token" | "pos_embed" | "patch_embed" => 0,
        "blocks" => name
            .split('.')
            .nth(1)
            .and_then(|number| number.parse::<usize>().ok())
            .map_or(above, |block| block + 1),
        _ => above,
    };
    decay.powi((above - layer.min(above)) as i32)
}

/// The lowerings that a backbone can have, in the order of their memory. A
/// ResNet has no two halves of a block, nor equal blocks for a loop; a loop hands
/// on one value only, and so not BN's statistics.
pub fn lowerings(model: &Model) -> impl Iterator<Item = Lowering> {
    let can = |lowering: &Lowering| match &model.backbone {
        Backbone::ResNet(_) => matches!(lowering, Lowering::Unrolled | Lowering::Remat),
        Backbone::Vit(vit) => vit.mlp_norm == MlpNorm::Layer || *lowering != Lowering::Scan,
    };
    Lowering::ALL.into_iter().filter(can)
}

/// Those that come after a lowering: with less memory, to be tried in their
/// order where it does not fit.
pub fn lighter(model: &Model, lowering: Lowering) -> impl Iterator<Item = Lowering> {
    lowerings(model)
        .skip_while(move |other| *other != lowering)
        .skip(1)
}

/// Whether a backbone's features of a picture depend on the pictures beside it,
/// as through BN.
pub fn mixes_samples(model: &Model) -> bool {
    model.has_batch_norm()
}

/// Refuses to take a batch in chunks where that would not be exact.
///
/// # Errors
/// [`crate::error::BadInput`].
pub fn check_accumulate(config: &RunConfig) -> anyhow::Result<()> {
    if config.accumulate == 1 || !mixes_samples(&config.model) {
        return Ok(());
    }
    Err(bad_input!(
        "`accumulate` is {}, and `model.arch` {} has BN, whose statistics are those of the whole \
         batch: no chunk has them, so the result would be another; set `accumulate` to 1, and use \
         more devices or `lowering` \"remat\" for less memory",
        config.accumulate,
        word(&config.model.arch),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// BEiT's rule at 3 blocks: 5 layers, of which the head is the last.
    #[test]
    fn the_learning_rate_falls_from_the_head_to_the_embedding() {
        let config = RunConfig::from_value(json!({
            "batch": 64,
            "model": {"arch": "vit", "blocks": 3, "dim": 16, "heads": 2, "patch": 8, "image_size": 16},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"epochs": 10},
        }))
        .unwrap();
        for (name, power) in [
            ("base_encoder.cls_token", 4),
            ("base_encoder.pos_embed", 4),
            ("base_encoder.patch_embed.proj.weight", 4),
            ("base_encoder.blocks.0.attn.qkv.weight", 3),
            ("base_encoder.blocks.2.mlp.fc1.bias", 1),
            ("base_encoder.norm.weight", 0),
            ("base_encoder.head.weight", 0),
        ] {
            let scale = layer_lr_scale(&config.model, name, 0.5);
            assert_eq!(scale, 0.5f64.powi(power), "{name}");
        }
    }

    #[test]
    fn what_is_lighter_than_a_lowering_comes_after_it() {
        let after = |model, lowering| {
            let config = RunConfig::from_value(json!({
                "batch": 64, "model": model,
                "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
                "schedule": {"epochs": 10},
            }))
            .unwrap();
            lighter(&config.model, lowering).collect::<Vec<_>>()
        };
        let vit = json!({"arch": "vit_small"});
        assert_eq!(after(vit.clone(), Lowering::Remat), [Lowering::Scan]);
        let all = after(vit.clone(), Lowering::Unrolled);
        assert_eq!(all.len(), Lowering::ALL.len() - 1);
        assert_eq!(after(vit, Lowering::Scan), []);
        let bn = json!({"arch": "vit_small", "mlp_norm": "batch"});
        assert_eq!(after(bn, Lowering::Remat), []);
        let resnet = json!({"arch": "resnet50"});
        assert_eq!(after(resnet, Lowering::Unrolled), [Lowering::Remat]);
    }
}

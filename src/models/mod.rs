//! Backbones and heads.
//!
//! A backbone takes normalised pictures [B, 3, S, S] to features [B, D] with D
//! = [`Model::features`], in the compute type.

mod body;
mod conv_stem;
pub mod head;
pub mod resnet;
pub mod vit;

use crate::bad_input;
use crate::config::{Backbone, ComputeDtype, MlpNorm, Model, RunConfig, word};
use crate::graph::block::Lowering;
use crate::graph::{DType, Result, Value};
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
}

impl Trunk {
    /// For features that nothing is learned from.
    pub const PLAIN: Self = Self {
        lowering: Lowering::Unrolled,
        differentiable: false,
        views: 1,
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

/// The name of the projector in the encoder: that of the layer of the public
/// code's backbone whose place it takes.
pub fn projector_name(model: &Model) -> &'static str {
    match &model.backbone {
        Backbone::Vit(_) => "head",
        Backbone::ResNet(_) => "fc",
    }
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

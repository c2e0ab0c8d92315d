//! The `model` section: which backbone, and its numbers.

mod checks;
mod written;

pub(super) use written::WrittenModel;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named backbone; or `vit` or `resnet` for one of a size of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    VitSmall,
    VitBase,
    VitLarge,
    VitHuge,
    VitConvSmall,
    VitConvBase,
    Vit,
    #[serde(rename = "resnet18")]
    ResNet18,
    #[serde(rename = "resnet50")]
    ResNet50,
    #[serde(rename = "resnet")]
    ResNet,
}

/// What makes tokens of patches (Sec. 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchProjection {
    /// A linear layer, random and fixed: a stop-gradient follows it.
    #[default]
    Frozen,
    /// The layer is trained.
    Learned,
    /// It is trained, and batch normalisation follows it.
    BatchNorm,
    /// It is trained as direction and length (Salimans and Kingma 2016).
    WeightNorm,
    /// 3x3 convolutions of stride 2 with BN and ReLU, then a 1x1 (Xiao et al.
    /// 2021); trained.
    ConvStem,
}

/// The ViT's position embedding (Sec. 6.2, "Position embedding").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Sines and cosines of row and column, fixed.
    #[default]
    SinCos,
    Learned,
    None,
}

/// What of a ViT's tokens its features are (Sec. 6.2, "Class token").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The class token after the final norm.
    #[default]
    Class,
    /// No class token: the mean of all tokens after the final norm.
    NormPool,
    /// No class token and no final norm: the mean of all tokens.
    Pool,
}

/// What normalises the tokens before a block's MLP (Sec. 6.3, "ViT-BN").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MlpNorm {
    #[default]
    Layer,
    Batch,
}

/// Who does a ViT's attention in the train step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// The ops of its equations, which each compiler fuses as it can.
    #[default]
    Plain,
    /// cuDNN's flash attention, which writes no matrix of scores; NVIDIA's GPUs
    /// only.
    Fused,
}

/// What a ResNet's residual block consists of (He et al. 2016, Fig. 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions, the last four times as wide.
    Bottleneck,
}

/// How a ResNet begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stem {
    /// A 7x7 convolution and a pooling, both of stride 2.
    #[default]
    #[serde(rename = "7x7")]
    Large,
    /// A 3x3 convolution of stride 1, for small pictures (Chen et al. 2020,
    /// appendix B.9).
    #[serde(rename = "3x3")]
    Small,
}

/// The type of activations and matrix products; parameters are f32 masters
/// and statistics, softmax, loss and optimizer f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputeDtype {
    #[default]
    Bf16,
    F32,
}

/// The backbone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    pub arch: Arch,
    #[serde(flatten)]
    pub backbone: Backbone,
    /// Side of the square input, pixels.
    pub image_size: usize,
    pub compute_dtype: ComputeDtype,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Backbone {
    Vit(Vit),
    ResNet(ResNet),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vit {
    pub blocks: usize,
    /// Width of the residual stream.
    pub dim: usize,
    pub heads: usize,
    /// The MLP's hidden width is `mlp_ratio * dim`.
    pub mlp_ratio: usize,
    pub mlp_norm: MlpNorm,
    /// Side of a patch, pixels; divides `image_size`.
    pub patch: usize,
    pub patch_projection: PatchProjection,
    pub position: Position,
    pub output: Output,
    pub attention: Attention,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResNet {
    pub block: Block,
    /// Residual blocks of each stage.
    pub stages: Vec<usize>,
    /// Channels after the stem; each stage has twice those of the one before.
    pub width: usize,
    pub stem: Stem,
}

impl Vit {
    /// Patches along a side of a picture of so many pixels.
    pub fn side(&self, image_size: usize) -> usize {
        image_size / self.patch
    }

    /// Tokens of such a picture, with the class token if there is one.
    pub fn tokens(&self, image_size: usize) -> usize {
        usize::from(self.output == Output::Class) + self.side(image_size).pow(2)
    }
}

impl Block {
    /// Channels that a block gives over its inner ones.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

impl ResNet {
    /// Inner channels of the blocks of stage `i` from 0.
    pub fn inner(&self, i: usize) -> usize {
        self.width << i
    }
}

impl Model {
    pub fn vit(&self) -> Option<&Vit> {
        match &self.backbone {
            Backbone::Vit(vit) => Some(vit),
            Backbone::ResNet(_) => None,
        }
    }

    /// Length of a picture's feature vector.
    pub fn features(&self) -> usize {
        match &self.backbone {
            Backbone::Vit(vit) => vit.dim,
            Backbone::ResNet(net) => {
                net.inner(net.stages.len().saturating_sub(1)) * net.block.expansion()
            }
        }
    }

    /// What the features are, in words.
    pub fn features_are(&self) -> &'static str {
        match &self.backbone {
            Backbone::ResNet(_) => "mean over all places of the last stage",
            Backbone::Vit(vit) => match vit.output {
                Output::Class => "class token after the final norm",
                Output::NormPool => "mean of all tokens after the final norm",
                Output::Pool => "mean of all tokens of the last block",
            },
        }
    }

    /// The tokens of a picture; for a ResNet, those of a ViT whose activations
    /// are about as large: a sixteenth of the first stage's places.
    pub fn tokens(&self) -> usize {
        match &self.backbone {
            Backbone::Vit(vit) => vit.tokens(self.image_size),
            Backbone::ResNet(net) => match net.stem {
                Stem::Large => 1 + (self.image_size / 16).pow(2),
                Stem::Small => 1 + (self.image_size / 4).pow(2),
            },
        }
    }

    /// Whether the backbone has BN, so that in training the features of a
    /// picture depend on the pictures beside it.
    pub fn has_batch_norm(&self) -> bool {
        match &self.backbone {
            Backbone::ResNet(_) => true,
            Backbone::Vit(vit) => {
                vit.mlp_norm == MlpNorm::Batch
                    || matches!(
                        vit.patch_projection,
                        PatchProjection::BatchNorm | PatchProjection::ConvStem
                    )
            }
        }
    }
}

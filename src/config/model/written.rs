//! The section as written, and what its names stand for.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::bad_input;
use crate::config::word;

/// The section as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenModel {
    arch: Arch,
    /// Transformer blocks; needed by, and only free with, arch "vit".
    blocks: Option<usize>,
    /// Width; as `blocks`.
    dim: Option<usize>,
    /// Attention heads; as `blocks`.
    heads: Option<usize>,
    /// MLP width over `dim`; 4 if absent.
    mlp_ratio: Option<usize>,
    /// Before the MLP of each ViT block; "layer" if absent.
    mlp_norm: Option<MlpNorm>,
    /// Side of a patch in pixels; 16 if absent, 14 for "vit_huge".
    patch: Option<usize>,
    /// "frozen" if absent; "conv_stem" for "vit_conv_small" and "vit_conv_base".
    patch_projection: Option<PatchProjection>,
    /// Of a ViT; "sin_cos" if absent.
    position: Option<Position>,
    /// Of a ViT; "class" if absent.
    output: Option<Output>,
    /// Of a ViT; "plain" if absent.
    attention: Option<Attention>,
    /// Residual block; needed by, and only free with, arch "resnet".
    block: Option<Block>,
    /// Residual blocks of each stage; as `block`.
    stages: Option<Vec<usize>>,
    /// Channels after a ResNet's stem; 64 if absent.
    width: Option<usize>,
    /// Of a ResNet; "7x7" if absent.
    stem: Option<Stem>,
    /// Side of the input in pixels; 224 if absent.
    image_size: Option<usize>,
    #[serde(default)]
    compute_dtype: ComputeDtype,
}

/// What a name stands for.
enum Named {
    /// Blocks, dim, heads, if they are named.
    Vit(Option<(usize, usize, usize)>),
    /// Block and stages, if they are named.
    ResNet(Option<(Block, Vec<usize>)>),
}

impl Arch {
    fn named(self) -> Named {
        match self {
            // Table 2; ViT-S with 12 heads, not timm's 6.
            Self::VitSmall => Named::Vit(Some((12, 384, 12))),
            Self::VitBase => Named::Vit(Some((12, 768, 12))),
            Self::VitLarge => Named::Vit(Some((24, 1024, 16))),
            Self::VitHuge => Named::Vit(Some((32, 1280, 16))),
            // A block fewer, for the stem's arithmetic (Xiao et al. 2021).
            Self::VitConvSmall => Named::Vit(Some((11, 384, 12))),
            Self::VitConvBase => Named::Vit(Some((11, 768, 12))),
            Self::Vit => Named::Vit(None),
            Self::ResNet18 => Named::ResNet(Some((Block::Basic, vec![2, 2, 2, 2]))),
            Self::ResNet50 => Named::ResNet(Some((Block::Bottleneck, vec![3, 4, 6, 3]))),
            Self::ResNet => Named::ResNet(None),
        }
    }
}

impl WrittenModel {
    pub fn resolve(self) -> Result<Model> {
        let (arch, image_size) = (self.arch, self.image_size.unwrap_or(224));
        let compute_dtype = self.compute_dtype;
        let backbone = match arch.named() {
            Named::Vit(named) => Backbone::Vit(self.vit(named)?),
            Named::ResNet(named) => Backbone::ResNet(self.resnet(named)?),
        };
        Ok(Model {
            arch,
            backbone,
            image_size,
            compute_dtype,
        })
    }

    fn vit(self, named: Option<(usize, usize, usize)>) -> Result<Vit> {
        self.refuse(
            "is a ViT",
            &[
                ("block", self.block.is_some()),
                ("stages", self.stages.is_some()),
                ("width", self.width.is_some()),
                ("stem", self.stem.is_some()),
            ],
        )?;
        let free = Free {
            arch: self.arch,
            other: "vit",
            keys: "`blocks`, `dim` and `heads`",
        };
        let conv = matches!(self.arch, Arch::VitConvSmall | Arch::VitConvBase);
        let projection = conv.then_some(PatchProjection::ConvStem);
        Ok(Vit {
            blocks: free.choose("blocks", self.blocks, named.map(|n| n.0))?,
            dim: free.choose("dim", self.dim, named.map(|n| n.1))?,
            heads: free.choose("heads", self.heads, named.map(|n| n.2))?,
            mlp_ratio: self.mlp_ratio.unwrap_or(4),
            mlp_norm: self.mlp_norm.unwrap_or_default(),
            patch: self.patch.unwrap_or(match self.arch {
                Arch::VitHuge => 14,
                _ => 16,
            }),
            patch_projection: match projection {
                None => self.patch_projection.unwrap_or_default(),
                named => free.choose("patch_projection", self.patch_projection, named)?,
            },
            position: self.position.unwrap_or_default(),
            output: self.output.unwrap_or_default(),
            attention: self.attention.unwrap_or_default(),
        })
    }

    fn resnet(self, named: Option<(Block, Vec<usize>)>) -> Result<ResNet> {
        self.refuse(
            "is a ResNet",
            &[
                ("blocks", self.blocks.is_some()),
                ("dim", self.dim.is_some()),
                ("heads", self.heads.is_some()),
                ("mlp_ratio", self.mlp_ratio.is_some()),
                ("mlp_norm", self.mlp_norm.is_some()),
                ("patch", self.patch.is_some()),
                ("patch_projection", self.patch_projection.is_some()),
                ("position", self.position.is_some()),
                ("output", self.output.is_some()),
                ("attention", self.attention.is_some()),
            ],
        )?;
        let free = Free {
            arch: self.arch,
            other: "resnet",
            keys: "`block` and `stages`",
        };
        let (block, stages) = named.unzip();
        Ok(ResNet {
            block: free.choose("block", self.block, block)?,
            stages: free.choose("stages", self.stages, stages)?,
            width: self.width.unwrap_or(64),
            stem: self.stem.unwrap_or_default(),
        })
    }

    /// Refuses the keys that are there and that this kind of backbone has not.
    fn refuse(&self, kind: &str, keys: &[(&str, bool)]) -> Result<()> {
        match keys.iter().find(|(_, there)| *there) {
            None => Ok(()),
            Some((key, _)) => Err(bad_input!(
                "`model.{key}` is given, but `model.arch` \"{}\" {kind}, which has no such number: \
                 leave `model.{key}` out, or set it to null where a base gives it",
                word(&self.arch)
            )),
        }
    }
}

/// The choice between a name's numbers and one's own.
struct Free {
    arch: Arch,
    /// The name that leaves them free, and what it then needs.
    other: &'static str,
    keys: &'static str,
}

impl Free {
    fn choose<T>(&self, key: &str, written: Option<T>, named: Option<T>) -> Result<T>
    where
        T: PartialEq + Serialize,
    {
        let Self { arch, other, keys } = self;
        let arch = word(arch);
        let json = |value: &T| serde_json::json!(value).to_string();
        match (written, named) {
            (Some(written), Some(named)) if written != named => Err(bad_input!(
                "`model.{key}` is {}, but `model.arch` \"{arch}\" has {}; leave `model.{key}` out, \
                 or set `model.arch` to \"{other}\" and give {keys}",
                json(&written),
                json(&named),
            )),
            (None, None) => Err(bad_input!(
                "`model.{key}` is missing; `model.arch` \"{other}\" needs {keys}"
            )),
            (Some(value), _) | (None, Some(value)) => Ok(value),
        }
    }
}

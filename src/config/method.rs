//! The `method` section: which self-supervised method, its heads and numbers.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks::{positive, within, word};
use super::supervised::{Supervised, WrittenSupervised};
use super::{Backbone, CropPass, Model, RunConfig};
use crate::bad_input;

/// The self-supervised method (Sec. 6.1), or training with labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    #[default]
    #[serde(rename = "moco_v3")]
    MocoV3,
    SimClr,
    Byol,
    SwAv,
    SimSiam,
    /// Classification of labelled pictures: fine-tuning, or from scratch.
    Supervised,
}

/// How the momentum coefficient moves over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MomentumSchedule {
    /// From `momentum` at the first step to 1 at the last.
    #[default]
    Cosine,
    Constant,
}

/// Which layers of a head batch normalisation follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadNorm {
    /// Every one; the last without gain and bias.
    All,
    /// All but the last.
    Hidden,
    None,
}

/// An MLP head: `layers` linear layers, the hidden ones `hidden` wide. No
/// layers: no head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    pub layers: usize,
    pub hidden: usize,
    pub out: usize,
    pub norm: HeadNorm,
}

/// What a batch of batch normalisation is (appendix A, "BatchNorm").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Crops {
    /// The first crops of all pictures, and then the second ones.
    Apart,
    /// Both crops of all pictures.
    Together,
}

/// What a contrastive loss is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossScale {
    /// 2 tau (Sec. 5, "Loss").
    TwoTau,
    One,
}

/// Whom SimCLR's loss compares a crop with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Both crops of all pictures, itself apart: the original's.
    BothViews,
    /// The other crops of all pictures.
    OtherView,
}

/// What only SwAV has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swav {
    pub prototypes: usize,
    /// Of Sinkhorn's algorithm: codes start as softmax(scores / epsilon).
    pub sinkhorn_epsilon: f64,
    /// 0: plain softmax codes, which collapse.
    pub sinkhorn_iterations: usize,
    /// Updates that leave the prototypes as they are.
    pub freeze_prototypes_steps: u64,
    /// Past projections of each view that codes are balanced over together
    /// with the batch, once so many have been seen; 0: none.
    pub queue: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Method {
    pub name: MethodName,
    /// tau of the loss; none where the loss has none (BYOL, SimSiam).
    pub temperature: Option<f64>,
    pub loss_scale: LossScale,
    /// Of the momentum encoder, at the first step; 0 where there is none.
    pub momentum: f64,
    pub momentum_schedule: MomentumSchedule,
    pub projector: Head,
    /// No layers where the method has no predictor.
    pub predictor: Head,
    pub bn_crops: Crops,
    /// None but for SimCLR.
    pub negatives: Option<Negatives>,
    /// None but for SwAV.
    pub swav: Option<Swav>,
    /// None but for training with labels.
    pub supervised: Option<Supervised>,
}

impl MethodName {
    /// Views of each picture in a step.
    pub fn views(self) -> usize {
        match self {
            Self::Supervised => 1,
            _ => 2,
        }
    }

    pub fn has_momentum_encoder(self) -> bool {
        matches!(self, Self::MocoV3 | Self::Byol)
    }

    pub fn has_predictor(self) -> bool {
        self.has_momentum_encoder() || self == Self::SimSiam
    }
}

/// The section as written. What the method does not have is not used, and
/// shown as absent in the resolved configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenMethod {
    #[serde(default)]
    name: MethodName,
    /// If absent: 0.2, on a ResNet 1; simclr and swav 0.1; byol and simsiam have none.
    temperature: Option<f64>,
    /// Of the contrastive loss; "two_tau" if absent, "one" for the others.
    loss_scale: Option<LossScale>,
    /// Of the momentum encoder at the first step; 0.99 if absent.
    momentum: Option<f64>,
    #[serde(default)]
    momentum_schedule: MomentumSchedule,
    /// If absent: 3 layers, 4096 hidden, 256 out; swav 2, 2048, 128; simsiam 3,
    /// 2048, 2048. On a ResNet 2, 4096, 256; simclr and swav 2, 2048, 128.
    #[serde(default)]
    projector: WrittenHead,
    /// If absent: 2 layers, 4096 hidden (simsiam 512), as many out as the
    /// projector. 0 layers: none.
    #[serde(default)]
    predictor: WrittenHead,
    /// If absent: "apart"; simclr and swav "together".
    bn_crops: Option<Crops>,
    /// Of simclr; "both_views" if absent.
    negatives: Option<Negatives>,
    #[serde(default)]
    swav: WrittenSwav,
    #[serde(default)]
    supervised: WrittenSupervised,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenHead {
    layers: Option<usize>,
    hidden: Option<usize>,
    out: Option<usize>,
    /// If absent: "all"; byol "hidden", swav "none". On a ResNet also swav and
    /// the predictor of moco_v3 "hidden", as everywhere that of simsiam.
    norm: Option<HeadNorm>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenSwav {
    /// 3000 if absent.
    prototypes: Option<usize>,
    /// 0.05 if absent.
    sinkhorn_epsilon: Option<f64>,
    /// 3 if absent; 0: plain softmax codes.
    sinkhorn_iterations: Option<usize>,
    /// 313 if absent: the original's, an epoch of ImageNet at a batch of 4096.
    freeze_prototypes_steps: Option<u64>,
    /// Past projections a view; 0 if absent.
    queue: Option<usize>,
}

/// Sizes and norms of heads: (projector's layers, hidden and output width),
/// BN of the projector, BN of the predictor.
type HeadDefaults = ((usize, usize, usize), HeadNorm, HeadNorm);

/// On a ViT the paper's (Sec. 5; appendix A, "MLP heads in BYOL and SwAV"). On
/// a ResNet the public code's of each method: of MoCo v3, SimCLR, BYOL and SwAV.
fn head_defaults(name: MethodName, model: &Model) -> HeadDefaults {
    use HeadNorm::{All, Hidden, None};
    use MethodName::{Byol, MocoV3, SimClr, SimSiam, Supervised, SwAv};
    match (&model.backbone, name) {
        (Backbone::Vit(_), MocoV3 | SimClr) => ((3, 4096, 256), All, All),
        (Backbone::Vit(_), Byol) => ((3, 4096, 256), Hidden, Hidden),
        (Backbone::Vit(_), SwAv) => ((2, 2048, 128), None, None),
        // One layer: the classifier.
        (_, Supervised) => ((1, 1, 1), None, None),
        // The public code's, on whatever backbone.
        (_, SimSiam) => ((3, 2048, 2048), All, Hidden),
        (Backbone::ResNet(_), MocoV3) => ((2, 4096, 256), All, Hidden),
        (Backbone::ResNet(_), SimClr) => ((2, 2048, 128), All, All),
        (Backbone::ResNet(_), Byol) => ((2, 4096, 256), Hidden, Hidden),
        (Backbone::ResNet(_), SwAv) => ((2, 2048, 128), Hidden, Hidden),
    }
}

impl WrittenMethod {
    /// # Errors
    /// If something that the method needs is not given.
    pub(super) fn resolve(self, model: &Model) -> Result<Method> {
        use MethodName::{Byol, MocoV3, SimClr, SimSiam, SwAv};
        let name = self.name;
        let supervised = match name {
            MethodName::Supervised => Some(self.supervised.resolve(model.vit().is_some())?),
            _ => None,
        };
        let ((layers, hidden, out), norm, predictor_norm) = head_defaults(name, model);
        let projector = match &supervised {
            Some(supervised) => Head {
                layers,
                hidden,
                out: supervised.classes,
                norm,
            },
            None => self.projector.resolve(Head {
                layers,
                hidden,
                out,
                norm,
            }),
        };
        let mut predictor = self.predictor.resolve(Head {
            layers: 2,
            hidden: match name {
                SimSiam => 512,
                _ => 4096,
            },
            out: projector.out,
            norm: predictor_norm,
        });
        if !name.has_predictor() {
            predictor.layers = 0;
        }
        if predictor.layers == 0 {
            predictor.out = projector.out;
        }
        let (momentum, momentum_schedule) = match name.has_momentum_encoder() {
            true => (self.momentum.unwrap_or(0.99), self.momentum_schedule),
            false => (0.0, MomentumSchedule::Constant),
        };
        Ok(Method {
            name,
            temperature: match name {
                MocoV3 => Some(self.temperature.unwrap_or(match model.backbone {
                    Backbone::Vit(_) => 0.2,
                    Backbone::ResNet(_) => 1.0,
                })),
                SimClr | SwAv => Some(self.temperature.unwrap_or(0.1)),
                Byol | SimSiam | MethodName::Supervised => None,
            },
            loss_scale: match name {
                MocoV3 => self.loss_scale.unwrap_or(LossScale::TwoTau),
                SimClr => self.loss_scale.unwrap_or(LossScale::One),
                Byol | SwAv | SimSiam | MethodName::Supervised => LossScale::One,
            },
            momentum,
            momentum_schedule,
            projector,
            predictor,
            bn_crops: self.bn_crops.unwrap_or(match name {
                MocoV3 | Byol | SimSiam | MethodName::Supervised => Crops::Apart,
                SimClr | SwAv => Crops::Together,
            }),
            negatives: (name == SimClr).then(|| self.negatives.unwrap_or(Negatives::BothViews)),
            swav: (name == SwAv).then(|| self.swav.resolve()),
            supervised,
        })
    }
}

impl WrittenHead {
    fn resolve(self, default: Head) -> Head {
        Head {
            layers: self.layers.unwrap_or(default.layers),
            hidden: self.hidden.unwrap_or(default.hidden),
            out: self.out.unwrap_or(default.out),
            norm: self.norm.unwrap_or(default.norm),
        }
    }
}

impl WrittenSwav {
    fn resolve(self) -> Swav {
        Swav {
            prototypes: self.prototypes.unwrap_or(3000),
            sinkhorn_epsilon: self.sinkhorn_epsilon.unwrap_or(0.05),
            sinkhorn_iterations: self.sinkhorn_iterations.unwrap_or(3),
            freeze_prototypes_steps: self.freeze_prototypes_steps.unwrap_or(313),
            queue: self.queue.unwrap_or(0),
        }
    }
}

impl RunConfig {
    pub(super) fn check_method(&self) -> Result<()> {
        let m = &self.method;
        if let Some(temperature) = m.temperature {
            positive("method.temperature", temperature)?;
        }
        within("method.momentum", m.momentum, 0.0..=1.0)?;
        for (key, head, least) in [
            ("projector", &m.projector, 1),
            ("predictor", &m.predictor, 0),
        ] {
            within(&format!("method.{key}.layers"), head.layers, least..=16)?;
            within(&format!("method.{key}.hidden"), head.hidden, 1..=1 << 20)?;
            within(&format!("method.{key}.out"), head.out, 1..=1 << 20)?;
        }
        if m.projector.out != m.predictor.out {
            return Err(bad_input!(
                "`method.projector.out` ({}) and `method.predictor.out` ({}) differ; the loss \
                 compares predictions with projections, so they must be equal",
                m.projector.out,
                m.predictor.out,
            ));
        }
        if self.batch < 2 {
            return Err(bad_input!(
                "`batch` is {}; \"{}\" compares pictures with one another: expected 2 or more",
                self.batch,
                word(&m.name)
            ));
        }
        let is_apart = self.crop_pass == CropPass::Apart && m.bn_crops == Crops::Together;
        if is_apart && self.model.has_batch_norm() {
            return Err(bad_input!(
                "`crop_pass` is \"apart\", but the backbone's BN has statistics of both crops \
                 (`method.bn_crops` is \"together\"): expected \"stacked\""
            ));
        }
        if let Some(supervised) = &m.supervised {
            self.check_supervised(supervised)?;
        }
        m.swav.as_ref().map_or(Ok(()), |swav| self.check_swav(swav))
    }

    fn check_swav(&self, swav: &Swav) -> Result<()> {
        within("method.swav.prototypes", swav.prototypes, 2..=1 << 20)?;
        // exp(-2 / epsilon) must not vanish in f32.
        within(
            "method.swav.sinkhorn_epsilon",
            swav.sinkhorn_epsilon,
            0.03..=10.0,
        )?;
        within(
            "method.swav.sinkhorn_iterations",
            swav.sinkhorn_iterations,
            0..=100,
        )?;
        within("method.swav.queue", swav.queue, 0..=1 << 24)?;
        if swav.queue > 0 && swav.queue < self.batch {
            return Err(bad_input!(
                "`method.swav.queue` ({}) is smaller than one `batch` ({}); make it larger, or 0 \
                 for none",
                swav.queue,
                self.batch
            ));
        }
        Ok(())
    }
}

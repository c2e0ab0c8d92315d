//! The `method.supervised` section: what training with labels has beside the
//! network (Sec. 6.2 and 6.5 of the paper fine-tune by DeiT's recipe, Touvron et
//! al. 2021).

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunConfig;
use super::checks::within;
use crate::bad_input;

/// Classification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Supervised {
    /// Of the training pictures.
    pub classes: usize,
    /// The share of each target that is spread evenly over all classes.
    pub label_smoothing: f64,
    /// The share of a picture in its mixture with another is drawn from
    /// Beta(mixup, mixup); 0: pictures are not blended (Zhang et al. 2018).
    pub mixup: f64,
    /// As `mixup`, for a rectangle of the other picture in place of a blend (Yun
    /// et al. 2019). Where both are above 0, each takes half of the batches.
    pub cutmix: f64,
    /// How often a sample skips the last block's branches; it rises evenly from
    /// 0 at the first block (stochastic depth, Huang et al. 2016).
    pub drop_path: f64,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSupervised {
    /// Classes of the training pictures; needed.
    classes: Option<usize>,
    /// 0.1 if absent.
    label_smoothing: Option<f64>,
    /// 0.8 if absent; 0: none.
    mixup: Option<f64>,
    /// 1 if absent; 0: none.
    cutmix: Option<f64>,
    /// 0.1 if absent, 0 on a ResNet.
    drop_path: Option<f64>,
}

impl WrittenSupervised {
    /// # Errors
    /// If the classes are not given.
    pub(super) fn resolve(self, is_vit: bool) -> Result<Supervised> {
        let Some(classes) = self.classes else {
            return Err(bad_input!(
                "`method.name` is \"supervised\", and `method.supervised.classes` is not given; \
                 set it to the number of classes of the training pictures"
            ));
        };
        Ok(Supervised {
            classes,
            label_smoothing: self.label_smoothing.unwrap_or(0.1),
            mixup: self.mixup.unwrap_or(0.8),
            cutmix: self.cutmix.unwrap_or(1.0),
            drop_path: self.drop_path.unwrap_or(if is_vit { 0.1 } else { 0.0 }),
        })
    }
}

/// Alphas of a Beta distribution: drawing from larger or smaller ones is slow, and
/// they say little but "one half", or "all or nothing".
const ALPHAS: [f64; 2] = [0.01, 8.0];

impl RunConfig {
    pub(super) fn check_supervised(&self, s: &Supervised) -> Result<()> {
        let at = |key: &str| format!("method.supervised.{key}");
        within(&at("classes"), s.classes, 2..=1 << 20)?;
        within(&at("label_smoothing"), s.label_smoothing, 0.0..=0.99)?;
        for (key, alpha) in [("mixup", s.mixup), ("cutmix", s.cutmix)] {
            if alpha != 0.0 {
                within(&at(key), alpha, ALPHAS[0]..=ALPHAS[1])?;
            }
        }
        within(&at("drop_path"), s.drop_path, 0.0..=0.99)?;
        if s.drop_path > 0.0 && self.model.vit().is_none() {
            return Err(bad_input!(
                "`method.supervised.drop_path` is {}, and `model.arch` is a ResNet, whose blocks \
                 are not skipped; set it to 0",
                s.drop_path
            ));
        }
        if self.accumulate > 1 {
            return Err(bad_input!(
                "`accumulate` is {}, and `method.name` is \"supervised\", which does not take a \
                 batch in chunks; set it to 1, and use more devices or `lowering` \"remat\" for \
                 less memory",
                self.accumulate
            ));
        }
        Ok(())
    }
}

//! What is allowed but costs hours when it was not meant: plain warnings that
//! name the fix.

use super::checks::word;
use super::method::{HeadNorm, MethodName};
use super::optimizer::Rule;
use super::schedule::{Length, Warmup};
use super::{Backbone, RunConfig, Stem};

/// Peak learning rate of AdamW from which a small ViT learns, and the batch
/// up to which a run counts as small.
const SMALL_PEAK: f64 = 5e-4;
const SMALL_BATCH: usize = 512;
/// The largest base learning rate of the paper's AdamW recipes; Fig. 2 finds
/// even less unstable at a batch of 4096.
const PAPER_BASE_LR: f64 = 2e-4;
const PAPER_BATCH: usize = 2048;
/// A picture in fewer patches than this has lost its layout.
const FEW_PATCHES: usize = 16;
/// A picture whose side is shorter loses its layout in a stem made for 224
/// pixels.
const SMALL_PICTURE: usize = 64;

impl RunConfig {
    /// What looks like a slip, in words, with what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        [
            self.warn_lr(),
            self.warn_warmup(),
            self.warn_temperature(),
            self.warn_knn(),
            self.warn_heads(),
            self.warn_patches(),
            self.warn_stem(),
            self.warn_collapse(),
            self.warn_frozen_prototypes(),
            self.warn_norm(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn warn_lr(&self) -> Option<String> {
        let Rule::AdamW { .. } = self.optimizer.rule else {
            return None;
        };
        let (lr, batch, peak) = (self.optimizer.base_lr, self.batch, self.peak_lr());
        if batch <= SMALL_BATCH && lr <= PAPER_BASE_LR {
            return Some(format!(
                "`optimizer.base_lr` {lr} is one for a batch of 4096: it is scaled by batch / 256, \
                 so that at `batch` {batch} the peak is {peak:.1e}, which learns little; for a \
                 peak of {SMALL_PEAK} set `optimizer.base_lr` to {:.1e}",
                SMALL_PEAK * 256.0 / batch as f64
            ));
        }
        (batch >= PAPER_BATCH && lr > 2.0 * PAPER_BASE_LR).then(|| {
            format!(
                "`optimizer.base_lr` {lr} is scaled by batch / 256: at `batch` {batch} the peak is \
                 {peak:.1e}, beyond what the paper found stable (Fig. 2); its recipes set \
                 `optimizer.base_lr` to 1.5e-4"
            )
        })
    }

    fn warn_warmup(&self) -> Option<String> {
        let s = &self.schedule;
        let share = match (s.warmup, s.length) {
            (Warmup::Epochs(warmup), Length::Epochs(total)) => warmup / total,
            (Warmup::Steps(warmup), Length::Steps(total)) => warmup as f64 / total as f64,
            // In unlike units until the size of the data is known.
            _ => 0.0,
        };
        (share > 0.5).then(|| {
            format!(
                "{} is more than half of the run, {}: the peak learning rate comes late and \
                 leaves at once; the recipes warm up for a tenth to four tenths",
                s.warmup, s.length
            )
        })
    }

    fn warn_temperature(&self) -> Option<String> {
        self.model.vit()?;
        let tau = self.method.temperature.filter(|tau| *tau >= 1.0)?;
        Some(format!(
            "`method.temperature` {tau} is that of the ResNet-50 recipe; on a ViT the paper uses \
             0.2: set `method.temperature` to 0.2"
        ))
    }

    fn warn_knn(&self) -> Option<String> {
        let (m, e) = (&self.monitor, &self.eval);
        for (key, k, limit, most) in [
            ("monitor", m.knn_k, "monitor.queue", m.queue),
            ("eval", e.knn_k, "eval.bank_limit", e.bank_limit),
        ] {
            if let Some(most) = most.filter(|most| (1..k).contains(most)) {
                return Some(format!(
                    "`{key}.knn_k` ({k}) is larger than `{limit}` ({most}): every stored feature \
                     votes on every picture; lower `{key}.knn_k` or raise `{limit}`"
                ));
            }
        }
        None
    }

    fn warn_heads(&self) -> Option<String> {
        let vit = self.model.vit()?;
        (vit.dim == 384 && vit.heads == 6).then(|| {
            "`model.heads` 6 at `model.dim` 384 is timm's ViT-S; the paper's has 12 (Table 2), and \
             weights of one run in the other without a word: set `model.heads` to 12, or \
             `model.arch` to \"vit_small\""
                .to_owned()
        })
    }

    fn warn_patches(&self) -> Option<String> {
        let (vit, size) = (self.model.vit()?, self.model.image_size);
        let patches = vit.side(size).pow(2);
        (patches < FEW_PATCHES).then(|| {
            let fine = (1..=size / 4)
                .rev()
                .find(|patch| size.is_multiple_of(*patch));
            let fix = fine.map_or(String::new(), |patch| {
                format!(": set `model.patch` to {patch} or less")
            });
            format!(
                "`model.patch` {} cuts a picture of {size} pixels into {patches} patches, too few \
                 to see its layout{fix}",
                vit.patch,
            )
        })
    }

    fn warn_stem(&self) -> Option<String> {
        let Backbone::ResNet(net) = &self.model.backbone else {
            return None;
        };
        let size = self.model.image_size;
        (net.stem == Stem::Large && size < SMALL_PICTURE).then(|| {
            format!(
                "`model.stem` \"7x7\" leaves {0}x{0} places of a picture of {size} pixels before \
                 the first residual block: set `model.stem` to \"3x3\"",
                size.div_ceil(4)
            )
        })
    }

    fn warn_collapse(&self) -> Option<String> {
        let m = &self.method;
        let needs_predictor = matches!(m.name, MethodName::Byol | MethodName::SimSiam);
        if needs_predictor && m.predictor.layers == 0 {
            return Some(format!(
                "{} without its predictor collapses: set `method.predictor.layers` to 2",
                word(&m.name)
            ));
        }
        let swav = m.swav.as_ref()?;
        (swav.sinkhorn_iterations == 0).then(|| {
            "swav with codes that nothing balances collapses: set \
             `method.swav.sinkhorn_iterations` to 3"
                .to_owned()
        })
    }

    fn warn_frozen_prototypes(&self) -> Option<String> {
        let (swav, Length::Steps(total)) = (self.method.swav.as_ref()?, self.schedule.length)
        else {
            return None;
        };
        (2 * swav.freeze_prototypes_steps > total).then(|| {
            format!(
                "`method.swav.freeze_prototypes_steps` ({}) is more than half of the run's {total} \
                 steps; the original freezes the prototypes for one epoch: set it to an epoch's \
                 steps",
                swav.freeze_prototypes_steps
            )
        })
    }

    fn warn_norm(&self) -> Option<String> {
        let m = &self.method;
        let bare = m.name == MethodName::MocoV3 && m.projector.norm == HeadNorm::None;
        (bare && self.batch > 2048).then(|| {
            format!(
                "without BN in its heads MoCo v3 did not converge at a batch of 4096 (Sec. 6.2), \
                 and `batch` is {}: set `batch` to 2048",
                self.batch
            )
        })
    }
}

//! What a resolved backbone must satisfy.

use anyhow::Result;

use super::*;
use crate::bad_input;
use crate::config::checks::{nearest_multiples, within};
use crate::config::{Lowering, RunConfig, word};

/// Tokens beyond which no attention matrix would fit anyway.
const MOST_PATCHES: usize = 65_536;

impl RunConfig {
    pub(in crate::config) fn check_model(&self) -> Result<()> {
        let m = &self.model;
        within("model.image_size", m.image_size, 1..=8192)?;
        match &m.backbone {
            Backbone::Vit(vit) => self.check_vit(vit),
            Backbone::ResNet(net) => self.check_resnet(net),
        }
    }

    fn check_vit(&self, m: &Vit) -> Result<()> {
        let size = self.model.image_size;
        within("model.blocks", m.blocks, 1..=1024)?;
        within("model.dim", m.dim, 4..=65_536)?;
        within("model.heads", m.heads, 1..=1024)?;
        within("model.mlp_ratio", m.mlp_ratio, 1..=64)?;
        within("model.patch", m.patch, 1..=size)?;
        if !size.is_multiple_of(m.patch) {
            return Err(bad_input!(
                "`model.patch` ({}) does not divide `model.image_size` ({size}); nearest sizes that \
                 it divides: {}",
                m.patch,
                nearest_multiples(size, m.patch),
            ));
        }
        let patches = m.side(size).pow(2);
        if patches > MOST_PATCHES {
            return Err(bad_input!(
                "`model.image_size` ({size}) over `model.patch` ({}) gives {patches} patches; at \
                 most {MOST_PATCHES} are supported: raise `model.patch`",
                m.patch,
            ));
        }
        if !m.dim.is_multiple_of(m.heads) {
            return Err(bad_input!(
                "`model.heads` ({}) does not divide `model.dim` ({}); nearest dims that it \
                 divides: {}",
                m.heads,
                m.dim,
                nearest_multiples(m.dim, m.heads),
            ));
        }
        if m.position == Position::SinCos && !m.dim.is_multiple_of(4) {
            return Err(bad_input!(
                "`model.dim` ({}) is not divisible by 4, as 2-D sin-cos positions need; nearest: {}",
                m.dim,
                nearest_multiples(m.dim, 4),
            ));
        }
        if m.patch_projection == PatchProjection::ConvStem {
            check_conv_stem(m)?;
        }
        if m.attention == Attention::Fused {
            self.check_fused(m)?;
        }
        if m.mlp_norm == MlpNorm::Batch && self.lowering == Lowering::Scan {
            return Err(bad_input!(
                "`lowering` is \"scan\", but with `model.mlp_norm` \"batch\" every block also gives \
                 new running statistics, and the loop hands on one value only; set `lowering` to \
                 \"remat\", which needs as little memory"
            ));
        }
        Ok(())
    }

    /// What cuDNN's attention takes.
    fn check_fused(&self, m: &Vit) -> Result<()> {
        if self.model.compute_dtype != ComputeDtype::Bf16 {
            return Err(bad_input!(
                "`model.attention` is \"fused\", which computes in bf16, and \
                 `model.compute_dtype` is \"f32\"; set one of them otherwise"
            ));
        }
        let width = m.dim / m.heads;
        if !width.is_multiple_of(8) || width > 128 {
            return Err(bad_input!(
                "`model.attention` is \"fused\", which takes heads whose width is a multiple of 8, \
                 128 at most; `model.dim` ({}) over `model.heads` ({}) is {width}: set it to \
                 \"plain\"",
                m.dim,
                m.heads
            ));
        }
        Ok(())
    }

    fn check_resnet(&self, m: &ResNet) -> Result<()> {
        if !(1..=6).contains(&m.stages.len()) {
            return Err(bad_input!(
                "`model.stages` has {} stages; expected 1 to 6",
                m.stages.len()
            ));
        }
        for (i, blocks) in m.stages.iter().enumerate() {
            within(&format!("model.stages[{i}]"), *blocks, 1..=1024)?;
        }
        within("model.width", m.width, 1..=4096)?;
        if !matches!(
            self.lowering,
            Lowering::Auto | Lowering::Unrolled | Lowering::Remat
        ) {
            return Err(bad_input!(
                "`lowering` is \"{}\", for equal blocks of attention and MLP, which `model.arch` \
                 \"{}\" has not; set `lowering` to \"remat\" for less memory, or to \"unrolled\"",
                word(&self.lowering),
                word(&self.model.arch)
            ));
        }
        Ok(())
    }
}

/// Halvings down to a patch, doublings up to the width.
fn check_conv_stem(m: &Vit) -> Result<()> {
    if m.patch < 2 || !m.patch.is_power_of_two() {
        return Err(bad_input!(
            "`model.patch` is {}, but a \"conv_stem\" halves the picture with each convolution; \
             expected 2, 4, 8, 16 or 32",
            m.patch
        ));
    }
    if !m.dim.is_multiple_of(m.patch / 2) {
        return Err(bad_input!(
            "`model.dim` ({}) is not divisible by {}, as a \"conv_stem\" that doubles its channels \
             down to patches of {} needs; nearest: {}",
            m.dim,
            m.patch / 2,
            m.patch,
            nearest_multiples(m.dim, m.patch / 2),
        ));
    }
    Ok(())
}

//! The Vision Transformer of timm 0.4.9 (Dosovitskiy et al. 2021): pre-norm
//! blocks, exact GELU, the class token after the final norm; and the paper's
//! variants of it: of position, output and patch projection (Sec. 4.2, 6.2),
//! BN before the MLPs (Sec. 6.3), a convolutional stem.

use super::body::{arguments, closed, part, renew};
use super::{Pool, Tap, Trunk, conv_stem};
use crate::config::{Attention, MlpNorm, Output, PatchProjection, Position, Vit};
use crate::graph::block::{self, Lowering};
use crate::graph::ops::AttentionKernel;
use crate::graph::{DType, Graph, Result, Value};
use crate::nn::{
    Init, Mode, Role, Site, Spec, attention, attention_by, attention_specs, batch_norm_of_views,
    batch_norm_specs, class_attention, class_attention_weights, layer_norm, layer_norm_specs,
    mean_pool, mlp, mlp_specs, patch_embed, patch_embed_specs, under, weight_norm_specs,
};

/// The variables under timm's names, such as `blocks.0.attn.qkv.weight`.
pub fn specs(vit: &Vit, image_size: usize) -> Vec<Spec> {
    let dim = vit.dim;
    let mut specs = Vec::new();
    if vit.output == Output::Class {
        specs.push(Spec::trained("cls_token", &[1, 1, dim], Init::Normal(1e-6)));
    }
    let positions = [1, vit.tokens(image_size), dim];
    let positions = |init| Spec::trained("pos_embed", &positions, init);
    match vit.position {
        Position::SinCos => {
            let side = vit.side(image_size);
            specs.push(positions(Init::Sincos2d { side }).with_role(Role::Frozen));
        }
        // The paper does not say how they start; this is the ViT's way.
        Position::Learned => specs.push(positions(Init::Normal(0.02))),
        Position::None => {}
    }
    specs.extend(under("patch_embed", patch_specs(vit)));
    for i in 0..vit.blocks {
        specs.extend(under(&format!("blocks.{i}"), block_specs(vit)));
    }
    if vit.output != Output::Pool {
        specs.extend(under("norm", layer_norm_specs(dim)));
    }
    specs
}

fn patch_specs(vit: &Vit) -> Vec<Spec> {
    let (dim, patch) = (vit.dim, vit.patch);
    let plain = || patch_embed_specs(dim, patch).into_iter();
    match vit.patch_projection {
        PatchProjection::Frozen => plain().map(|spec| spec.with_role(Role::Frozen)).collect(),
        PatchProjection::Learned => plain().collect(),
        PatchProjection::BatchNorm => plain()
            .chain(under("norm", batch_norm_specs(dim, true)))
            .collect(),
        PatchProjection::WeightNorm => weight_norm_specs(dim, patch),
        PatchProjection::ConvStem => conv_stem::specs(dim, patch),
    }
}

fn block_specs(vit: &Vit) -> Vec<Spec> {
    let dim = vit.dim;
    let norm2 = match vit.mlp_norm {
        MlpNorm::Layer => layer_norm_specs(dim),
        MlpNorm::Batch => batch_norm_specs(dim, true),
    };
    let mut specs = attention_half_specs(vit);
    specs.extend(under("norm2", norm2));
    specs.extend(under("mlp", mlp_specs(dim, vit.mlp_ratio * dim)));
    specs
}

/// Those of a block's first half.
fn attention_half_specs(vit: &Vit) -> Vec<Spec> {
    under("norm1", layer_norm_specs(vit.dim))
        .chain(under("attn", attention_specs(vit.dim)))
        .collect()
}

/// What a block's halves are applied to beside the tokens of `batch` pictures:
/// their variables and, where branches are skipped, the scales of those.
fn halves(vit: &Vit, trunk: Trunk, batch: usize) -> [Vec<Spec>; 2] {
    let mut attention = block_specs(vit);
    let mut mlp = attention.split_off(attention_half_specs(vit).len());
    if trunk.drop_path {
        let scale = |half: &str| {
            let name = format!("{half}.{DROP_PATH}");
            Spec::trained(name, &[batch], Init::Zeros).with_role(Role::Frozen)
        };
        attention.push(scale("attn"));
        mlp.push(scale("mlp"));
    }
    [attention, mlp]
}

/// By how much a branch of each sample is scaled.
pub const DROP_PATH: &str = "drop_path";

/// Normalised pictures [B, 3, S, S] to features [B, dim], in the compute type.
pub fn vit(site: &Site, vit: &Vit, trunk: Trunk, x: Value) -> Result<Value> {
    let _scope = site.enter();
    let x = embed(site, vit, trunk, x)?;
    match vit.output {
        Output::Class => {
            let class = blocks(site, vit, trunk, Tokens::Class, x)?;
            let class = site.b.reshape(class, &[class.dim(0), vit.dim])?;
            layer_norm(&site.at("norm"), class)
        }
        Output::NormPool => {
            let x = blocks(site, vit, trunk, Tokens::All, x)?;
            mean_pool(site, layer_norm(&site.at("norm"), x)?)
        }
        Output::Pool => mean_pool(site, blocks(site, vit, trunk, Tokens::All, x)?),
    }
}

/// As [`vit`], but all tokens [B, T, dim] after all blocks, without the final
/// norm.
pub fn tokens(site: &Site, vit: &Vit, trunk: Trunk, x: Value) -> Result<Value> {
    let _scope = site.enter();
    let x = embed(site, vit, trunk, x)?;
    blocks(site, vit, trunk, Tokens::All, x)
}

/// Normalised pictures [B, 3, S, S] to features at some places, side by side,
/// [B, taps * dim]. Each passes the final norm where there is one.
///
/// # Errors
/// For a place that the model does not have ([`Tap::check`]).
pub fn taps(site: &Site, vit: &Vit, trunk: Trunk, taps: &[Tap], x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let mut x = embed(site, vit, trunk, x)?;
    let specs = halves(vit, trunk, x.dim(0)).concat();
    let body = block_body(site, vit, trunk, Tokens::All, x)?;
    let deepest = taps.iter().map(|tap| tap.blocks).max().unwrap_or(0);
    let mut found: Vec<Option<Value>> = vec![None; taps.len()];
    for done in 1..=deepest {
        let name = format!("blocks.{}", done - 1);
        let args = [vec![x], arguments(&site.at(&name), &specs)?].concat();
        let _scope = b.scope(name);
        x = block::call(b, &body, &args, trunk.lowering, trunk.differentiable)?[0];
        for (tap, found) in taps.iter().zip(&mut found) {
            if tap.blocks == done {
                *found = Some(read(site, vit, tap.pool, x)?);
            }
        }
    }
    let found: Vec<Value> = found.into_iter().flatten().collect();
    b.concatenate(&found, 1)
}

/// Tokens [B, T, dim] to one row, [B, dim].
fn read(site: &Site, vit: &Vit, pool: Pool, x: Value) -> Result<Value> {
    let b = site.b;
    let x = match vit.output {
        Output::Pool => x,
        Output::Class | Output::NormPool => layer_norm(&site.at("norm"), x)?,
    };
    let patches = usize::from(vit.output == Output::Class);
    match pool {
        Pool::Class => b.reshape(b.slice_axis(x, 1, 0, 1)?, &[x.dim(0), vit.dim]),
        Pool::Mean => mean_pool(site, b.slice_axis(x, 1, patches, x.dim(1))?),
    }
}

/// How the class token weighs the tokens in the last block: f32 [B, heads, T],
/// the class token first, then the patches row by row; normalised pictures [B,
/// 3, S, S] as for [`vit`], for a ViT with a class token, in evaluation form.
pub fn class_weights(site: &Site, vit: &Vit, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let last = vit.blocks - 1;
    let x = embed(site, vit, Trunk::PLAIN, x)?;
    let x = alike(site, vit, Trunk::PLAIN, last, x)?;
    let place = site.at(&format!("blocks.{last}"));
    let _block = b.scope(format!("blocks.{last}"));
    let y = layer_norm(&place.at("norm1"), x)?;
    let weights = class_attention_weights(&place.at("attn"), y, vit.heads)?;
    b.convert(weights, DType::F32)
}

/// Pictures to patch tokens, after a class token if there is one, with their
/// positions.
fn embed(site: &Site, vit: &Vit, trunk: Trunk, x: Value) -> Result<Value> {
    let b = site.b;
    let place = site.at("patch_embed");
    let mut x = match vit.patch_projection {
        PatchProjection::ConvStem => conv_stem::conv_stem(&place, vit.patch, trunk.views, x)?,
        PatchProjection::BatchNorm => {
            let x = patch_embed(&place, x)?;
            let _scope = place.enter();
            batch_norm_of_views(&place.at("norm"), x, trunk.views)?
        }
        PatchProjection::Frozen | PatchProjection::Learned | PatchProjection::WeightNorm => {
            patch_embed(&place, x)?
        }
    };
    let _scope = b.scope("embed");
    if vit.output == Output::Class {
        let class = b.broadcast_to(site.get("cls_token")?, &[x.dim(0), 1, vit.dim])?;
        x = b.concatenate(&[b.convert(class, site.compute)?, x], 1)?;
    }
    match vit.position {
        Position::None => Ok(x),
        Position::SinCos | Position::Learned => {
            b.add(x, b.convert(site.get("pos_embed")?, site.compute)?)
        }
    }
}

/// The tokens that a block makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    All,
    /// What the last block is asked for where the class token is the output:
    /// its queries, projection and MLP are those of one token, which in a ViT
    /// of 12 blocks saves a fifteenth of all arithmetic.
    Class,
}

/// All blocks, of which the last gives the tokens that are wished for.
fn blocks(site: &Site, vit: &Vit, trunk: Trunk, wished: Tokens, x: Value) -> Result<Value> {
    let b = site.b;
    if wished == Tokens::All {
        return alike(site, vit, trunk, vit.blocks, x);
    }
    let last = vit.blocks - 1;
    let x = alike(site, vit, trunk, last, x)?;
    let specs = halves(vit, trunk, x.dim(0)).concat();
    let place = site.at(&format!("blocks.{last}"));
    let body = block_body(site, vit, trunk, wished, x)?;
    let _scope = b.scope(format!("blocks.{last}"));
    let args = [vec![x], arguments(&place, &specs)?].concat();
    let found = block::call(b, &body, &args, trunk.lowering, trunk.differentiable)?;
    renew(&place, &specs, &found[1..]);
    Ok(found[0])
}

/// The first `count` blocks, which give all tokens.
fn alike(site: &Site, vit: &Vit, trunk: Trunk, count: usize, x: Value) -> Result<Value> {
    let specs = halves(vit, trunk, x.dim(0)).concat();
    let place = |i: usize| site.at(&format!("blocks.{i}"));
    let layers: Vec<Vec<Value>> = (0..count)
        .map(|i| arguments(&place(i), &specs))
        .collect::<Result<_>>()?;
    let body = block_body(site, vit, trunk, Tokens::All, x)?;
    let (x, buffers) = block::apply(
        site.b,
        "blocks",
        &body,
        x,
        &layers,
        trunk.lowering,
        trunk.differentiable,
    )?;
    for (i, new) in buffers.iter().enumerate() {
        renew(&place(i), &specs, new);
    }
    Ok(x)
}

/// A block as a closed function of the tokens and its own variables, in the
/// order of [`block_specs`].
fn block_body(site: &Site, vit: &Vit, trunk: Trunk, tokens: Tokens, x: Value) -> Result<Graph> {
    let recomputes = |lowering| trunk.differentiable && trunk.lowering == lowering;
    let [attention, mlp] = halves(vit, trunk, x.dim(0));
    let specs = [&attention[..], &mlp[..]].concat();
    closed(site, &specs, x, |site, x| {
        // BN's statistics are of all tokens, so these come before it.
        let of_all = vit.mlp_norm == MlpNorm::Batch && site.mode == Mode::Train;
        let early = if of_all { Tokens::All } else { tokens };
        let of_attention = recomputes(Lowering::RematAttention);
        let x = part(site, &attention, of_attention, x, |site, x| {
            attention_half(site, vit, early, x)
        })?;
        // Between the halves: as small as a block's input, and the attention's
        // last product is not computed again.
        let x = match recomputes(Lowering::Remat) {
            true => site.b.save(x)?,
            false => x,
        };
        part(site, &mlp, recomputes(Lowering::RematMlp), x, |site, x| {
            mlp_half(site, vit, trunk, tokens, x)
        })
    })
}

fn attention_half(site: &Site, vit: &Vit, tokens: Tokens, x: Value) -> Result<Value> {
    let y = layer_norm(&site.at("norm1"), x)?;
    let place = site.at("attn");
    match tokens {
        // Features are taken on any device.
        Tokens::All if vit.attention == Attention::Fused && site.mode == Mode::Train => {
            let branch = attention_by(&place, y, vit.heads, AttentionKernel::Cudnn)?;
            add_branch(&place, x, branch)
        }
        Tokens::All => add_branch(&place, x, attention(&place, y, vit.heads)?),
        Tokens::Class => {
            let x = site.b.slice_axis(x, 1, 0, 1)?;
            add_branch(&place, x, class_attention(&place, y, vit.heads)?)
        }
    }
}

/// x + branch, both [B, T, dim]; each sample's branch scaled where the site says
/// by how much.
fn add_branch(site: &Site, x: Value, branch: Value) -> Result<Value> {
    let b = site.b;
    let Some(scale) = site.find(DROP_PATH) else {
        return b.add(x, branch);
    };
    let scale = b.convert(scale, branch.dtype())?;
    let scale = b.broadcast_in_dim(scale, branch.dims(), &[0])?;
    b.add(x, b.mul(branch, scale)?)
}

fn mlp_half(site: &Site, vit: &Vit, trunk: Trunk, tokens: Tokens, x: Value) -> Result<Value> {
    let b = site.b;
    let place = site.at("norm2");
    let y = match vit.mlp_norm {
        MlpNorm::Layer => layer_norm(&place, x)?,
        MlpNorm::Batch => batch_norm_of_views(&place, x, trunk.views)?,
    };
    let wished = |x: Value| match tokens {
        Tokens::Class if x.dim(1) > 1 => b.slice_axis(x, 1, 0, 1),
        _ => Ok(x),
    };
    let place = site.at("mlp");
    add_branch(&place, wished(x)?, mlp(&place, wished(y)?)?)
}

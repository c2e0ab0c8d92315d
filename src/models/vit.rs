//! The Vision Transformer of timm 0.4.9 (Dosovitskiy et al. 2021): pre-norm
//! blocks, exact GELU, the class token after the final norm.

use crate::config::{Model, PatchProjection};
use crate::graph::block::{self, Lowering};
use crate::graph::{Builder, DType, Graph, Result, Shape, Value};
use crate::nn::{
    Init, Mode, Role, Site, Spec, Variables, attention, attention_specs, class_attention,
    layer_norm, layer_norm_specs, mlp, mlp_specs, patch_embed, patch_embed_specs, under,
};

/// The variables under timm's names, such as `blocks.0.attn.qkv.weight`.
pub fn specs(model: &Model) -> Vec<Spec> {
    let (dim, tokens) = (model.dim, 1 + model.patches());
    let side = model.image_size / model.patch;
    let projection = match model.patch_projection {
        PatchProjection::Frozen => Role::Frozen,
        PatchProjection::Learned => Role::Trained,
    };
    let mut specs = vec![
        Spec::trained("cls_token", &[1, 1, dim], Init::Normal(1e-6)),
        Spec::trained("pos_embed", &[1, tokens, dim], Init::Sincos2d { side })
            .with_role(Role::Frozen),
    ];
    let patches = under("patch_embed", patch_embed_specs(dim, model.patch));
    specs.extend(patches.map(|spec| spec.with_role(projection)));
    for i in 0..model.blocks {
        specs.extend(under(&format!("blocks.{i}"), block_specs(model)));
    }
    specs.extend(under("norm", layer_norm_specs(dim)));
    specs
}

fn block_specs(model: &Model) -> Vec<Spec> {
    let dim = model.dim;
    let mut specs = block_attention_specs(model);
    specs.extend(under("norm2", layer_norm_specs(dim)));
    specs.extend(under("mlp", mlp_specs(dim, model.mlp_ratio * dim)));
    specs
}

/// Those of a block's first half.
fn block_attention_specs(model: &Model) -> Vec<Spec> {
    under("norm1", layer_norm_specs(model.dim))
        .chain(under("attn", attention_specs(model.dim)))
        .collect()
}

/// How the trunk becomes ops.
#[derive(Clone, Copy, Debug)]
pub struct Trunk {
    pub lowering: Lowering,
    /// Whether gradients of it will be asked for.
    pub differentiable: bool,
}

/// Normalised pictures [B, 3, S, S] to the class token's features [B, dim]
/// after the final norm, in the compute type.
pub fn vit(site: &Site, model: &Model, trunk: Trunk, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let (batch, dim) = (x.dim(0), model.dim);
    let x = embed(site, dim, x)?;
    let layers = layers(site, model)?;
    let class = match layers.split_last() {
        None => b.slice_axis(x, 1, 0, 1)?,
        Some((last, others)) => {
            let x = blocks(site, model, trunk, x, others)?;
            let body = block_body(site, model, Tokens::Class, trunk, x)?;
            let _scope = b.scope(format!("blocks.{}", others.len()));
            let args = [&[x], &last[..]].concat();
            block::call(b, &body, &args, trunk.lowering, trunk.differentiable)?
        }
    };
    let class = b.reshape(class, &[batch, dim])?;
    layer_norm(&site.at("norm"), class)
}

/// As [`vit`], but all tokens [B, T, dim] after all blocks, without the final
/// norm.
pub fn tokens(site: &Site, model: &Model, trunk: Trunk, x: Value) -> Result<Value> {
    let _scope = site.enter();
    let x = embed(site, model.dim, x)?;
    blocks(site, model, trunk, x, &layers(site, model)?)
}

/// Pictures to class and patch tokens with their positions.
fn embed(site: &Site, dim: usize, x: Value) -> Result<Value> {
    let b = site.b;
    let patches = patch_embed(&site.at("patch_embed"), x)?;
    let _scope = b.scope("embed");
    let class = b.broadcast_to(site.get("cls_token")?, &[x.dim(0), 1, dim])?;
    let class = b.convert(class, site.compute)?;
    let position = b.convert(site.get("pos_embed")?, site.compute)?;
    b.add(b.concatenate(&[class, patches], 1)?, position)
}

/// Each block's variables, in the order of [`block_specs`].
fn layers(site: &Site, model: &Model) -> Result<Vec<Vec<Value>>> {
    let specs = block_specs(model);
    (0..model.blocks)
        .map(|i| {
            let layer = site.at(&format!("blocks.{i}"));
            specs.iter().map(|spec| layer.get(&spec.name)).collect()
        })
        .collect()
}

/// The first blocks, whose variables are `layers`, on all tokens.
fn blocks(
    site: &Site,
    model: &Model,
    trunk: Trunk,
    x: Value,
    layers: &[Vec<Value>],
) -> Result<Value> {
    let body = block_body(site, model, Tokens::All, trunk, x)?;
    let Trunk {
        lowering,
        differentiable,
    } = trunk;
    block::apply(site.b, "blocks", &body, x, layers, lowering, differentiable)
}

/// The tokens that a block makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    All,
    /// What the last block is asked for: its queries, projection and MLP are
    /// those of one token, which in a ViT of 12 blocks saves a fifteenth of all
    /// arithmetic.
    Class,
}

/// A block as a closed function of the tokens and its own variables, in the
/// order of [`block_specs`].
fn block_body(site: &Site, model: &Model, tokens: Tokens, trunk: Trunk, x: Value) -> Result<Graph> {
    let recomputes = |lowering| trunk.differentiable && trunk.lowering == lowering;
    let specs = block_specs(model);
    closed(site, &specs, x, |site, x| {
        let (attention, mlp) = specs.split_at(block_attention_specs(model).len());
        let x = part(
            site,
            attention,
            recomputes(Lowering::RematAttention),
            x,
            |site, x| attention_part(site, model, tokens, x),
        )?;
        part(site, mlp, recomputes(Lowering::RematMlp), x, mlp_part)
    })
}

/// The first half of a block.
fn attention_part(site: &Site, model: &Model, tokens: Tokens, x: Value) -> Result<Value> {
    let y = layer_norm(&site.at("norm1"), x)?;
    let attn = site.at("attn");
    match tokens {
        Tokens::All => site.b.add(x, attention(&attn, y, model.heads)?),
        Tokens::Class => {
            let x = site.b.slice_axis(x, 1, 0, 1)?;
            site.b.add(x, class_attention(&attn, y, model.heads)?)
        }
    }
}

/// The second half of a block.
fn mlp_part(site: &Site, x: Value) -> Result<Value> {
    let y = layer_norm(&site.at("norm2"), x)?;
    site.b.add(x, mlp(&site.at("mlp"), y)?)
}

/// Applies `f`, which has the variables `specs`; its inner values are recomputed
/// for the gradient if so wished.
fn part(
    site: &Site,
    specs: &[Spec],
    recomputed: bool,
    x: Value,
    f: impl Fn(&Site, Value) -> Result<Value>,
) -> Result<Value> {
    if !recomputed {
        return f(site, x);
    }
    let mut args = vec![x];
    for spec in specs {
        args.push(site.get(&spec.name)?);
    }
    Ok(site.b.remat(closed(site, specs, x, f)?, &args)?[0])
}

/// `f` as a function of x and of the variables `specs` of the site.
fn closed(
    site: &Site,
    specs: &[Spec],
    x: Value,
    f: impl Fn(&Site, Value) -> Result<Value>,
) -> Result<Graph> {
    let b = Builder::new();
    let x = b.input("x", x.shape);
    let own = specs.iter().map(|spec| {
        (
            spec.name.clone(),
            b.input(&spec.name, Shape::new(DType::F32, &spec.dims)),
        )
    });
    let variables = Variables::new(own.collect::<Vec<_>>());
    let site = Site::new(&b, &variables, site.compute, Mode::Evaluate);
    b.output("y", f(&site, x)?);
    b.finish()
}

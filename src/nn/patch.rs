use super::{Init, Site, Spec, under};
use crate::graph::{Result, Value};

/// timm's names and layouts: `proj.weight` [dim, 3, patch, patch], uniform
/// within sqrt(6 / (3 patch^2 + dim)); `proj.bias` [dim].
pub fn patch_embed_specs(dim: usize, patch: usize) -> Vec<Spec> {
    let init = Init::xavier(3 * patch * patch, dim);
    let specs = vec![
        Spec::trained("weight", &[dim, 3, patch, patch], init),
        Spec::trained("bias", &[dim], Init::Zeros),
    ];
    under("proj", specs).collect()
}

/// The same layer as direction `proj.weight_v` [dim, 3, patch, patch] and length
/// `proj.weight_g` [dim, 1, 1, 1], under PyTorch's names: the weight is
/// g v / |v|, and starts as v.
pub fn weight_norm_specs(dim: usize, patch: usize) -> Vec<Spec> {
    let inputs = 3 * patch * patch;
    let direction = Init::xavier(inputs, dim);
    let length = match direction {
        Init::Uniform(bound) => Init::RowNorms {
            of: "weight_v",
            inputs,
            bound,
        },
        other => other,
    };
    let specs = vec![
        Spec::trained("weight_g", &[dim, 1, 1, 1], length),
        Spec::trained("weight_v", &[dim, 3, patch, patch], direction),
        Spec::trained("bias", &[dim], Init::Zeros),
    ];
    under("proj", specs).collect()
}

/// The projection's weight, [dim, 3, patch, patch].
fn weight(proj: &Site) -> Result<Value> {
    let b = proj.b;
    let Some(v) = proj.find("weight_v") else {
        return proj.get("weight");
    };
    let squares = b.sum(b.mul(v, v)?, &[1, 2, 3])?;
    let scale = b.mul(
        b.reshape(proj.get("weight_g")?, squares.dims())?,
        b.rsqrt(squares)?,
    )?;
    b.mul(v, b.spread(scale, v, &[1, 2, 3])?)
}

/// Pictures [B, 3, S, S] to tokens [B, (S/patch)^2, dim], row by row, in the
/// compute type: the strided convolution as one matrix product.
pub fn patch_embed(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let proj = site.at("proj");
    let weight = weight(&proj)?;
    let (dim, patch) = (weight.dim(0), weight.dim(3));
    let (batch, side) = (x.dim(0), x.dim(2) / patch.max(1));
    let x = b.convert(x, site.compute)?;
    let cells = b.reshape(x, &[batch, 3, side, patch, side, patch])?;
    let cells = b.transpose(cells, &[0, 2, 4, 1, 3, 5])?;
    let cells = b.reshape(cells, &[batch, side * side, 3 * patch * patch])?;
    let weight = b.convert(b.reshape(weight, &[dim, 3 * patch * patch])?, site.compute)?;
    let y = b.dot(cells, weight, &[2], &[1])?;
    b.add(y, b.convert(proj.get("bias")?, site.compute)?)
}

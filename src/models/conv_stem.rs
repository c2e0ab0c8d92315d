//! The convolutional stem of Xiao et al. 2021 ("Early convolutions help
//! transformers see better"), in place of the patch projection.

use crate::graph::{Result, Value};
use crate::nn::{
    Init, Site, Spec, batch_norm_of_views, batch_norm_specs, conv, conv_specs, relu, under,
};

/// Convolutions that halve the picture, down to its patches.
fn halvings(patch: usize) -> usize {
    patch.trailing_zeros() as usize
}

/// Channels before and after each halving: they double, up to `dim`.
fn channels(dim: usize, patch: usize) -> Vec<(usize, usize)> {
    let last = halvings(patch);
    let after = |i: usize| dim >> (last - 1 - i);
    let before = |i: usize| if i == 0 { 3 } else { after(i - 1) };
    (0..last).map(|i| (before(i), after(i))).collect()
}

/// The public code's names, `proj.N` in a sequence of convolution, BN, ReLU,
/// and so on; the last convolution is 1x1 and has a bias.
pub fn specs(dim: usize, patch: usize) -> Vec<Spec> {
    let mut specs = Vec::new();
    for (i, (inputs, outputs)) in channels(dim, patch).into_iter().enumerate() {
        let init = Init::fan_in(9 * inputs);
        let filter = conv_specs(inputs, outputs, 3, init);
        specs.extend(under(&format!("proj.{}", 3 * i), filter));
        let norm = batch_norm_specs(outputs, true);
        specs.extend(under(&format!("proj.{}", 3 * i + 1), norm));
    }
    let mut last = conv_specs(dim, dim, 1, Init::fan_in(dim));
    last.push(Spec::trained("bias", &[dim], Init::fan_in(dim)));
    specs.extend(under(&format!("proj.{}", 3 * halvings(patch)), last));
    specs
}

/// Pictures [B, 3, S, S] to tokens [B, (S/patch)^2, dim], row by row, in the
/// compute type.
pub fn conv_stem(site: &Site, patch: usize, views: usize, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let last = halvings(patch);
    let layer = |n: usize| site.at(&format!("proj.{n}"));
    let mut x = b.transpose(b.convert(x, site.compute)?, &[0, 2, 3, 1])?;
    for i in 0..last {
        x = conv(&layer(3 * i), x, 2)?;
        x = batch_norm_of_views(&layer(3 * i + 1), x, views)?;
        x = relu(site, x)?;
    }
    let x = conv(&layer(3 * last), x, 1)?;
    b.reshape(x, &[x.dim(0), x.dim(1) * x.dim(2), x.dim(3)])
}

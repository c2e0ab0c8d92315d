//! Normalisation. Statistics and results of the arithmetic are f32.

use super::{Init, Mode, Role, Site, Spec};
use crate::graph::{DType, Result, Value};

const LAYER_NORM_EPS: f64 = 1e-6;
const BATCH_NORM_EPS: f64 = 1e-5;
/// Share of the batch in the new running statistics.
const BATCH_NORM_MOMENTUM: f64 = 0.1;

fn affine(dim: usize) -> Vec<Spec> {
    vec![
        Spec::trained("weight", &[dim], Init::Ones),
        Spec::trained("bias", &[dim], Init::Zeros),
    ]
}

pub fn layer_norm_specs(dim: usize) -> Vec<Spec> {
    affine(dim)
}

/// Normalises each vector along the last axis, eps 1e-6 (timm's ViT); the
/// result has the type of `x`. Statistics take one pass over it: the variance
/// is the mean of the squares less the square of the mean.
pub fn layer_norm(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let last = [x.rank().saturating_sub(1)];
    let x32 = b.convert(x, DType::F32)?;
    let mean = b.mean(x32, &last)?;
    let squares = b.mean(b.mul(x32, x32)?, &last)?;
    let variance = b.sub(squares, b.mul(mean, mean)?)?;
    // Rounding may leave less than nothing.
    let variance = b.max(variance, b.full_like(variance, 0.0)?)?;
    let scale = b.rsqrt(b.shift(variance, LAYER_NORM_EPS)?)?;
    let centred = b.sub(x32, b.spread(mean, x32, &last)?)?;
    let y = b.mul(centred, b.spread(scale, x32, &last)?)?;
    let y = b.add(b.mul(y, site.get("weight")?)?, site.get("bias")?)?;
    b.convert(y, x.dtype())
}

/// Without `affine` there is neither gain nor bias.
pub fn batch_norm_specs(dim: usize, with_affine: bool) -> Vec<Spec> {
    let mut specs = if with_affine { affine(dim) } else { Vec::new() };
    specs.extend([
        Spec::trained("running_mean", &[dim], Init::Zeros).with_role(Role::Buffer),
        Spec::trained("running_var", &[dim], Init::Ones).with_role(Role::Buffer),
    ]);
    specs
}

/// Normalises each channel of `x`, [B, channels] or [B, views, .., channels],
/// over the batch and whatever places there are; eps 1e-5. The result is f32.
///
/// In training the statistics are those of the whole batch, over all devices,
/// each view having its own. The running ones move a tenth of the way to them,
/// to one view's after the other's; the running variance takes the unbiased
/// estimate (PyTorch's rule).
pub fn batch_norm(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let x = b.convert(x, DType::F32)?;
    let channel = x.rank().saturating_sub(1);
    let axes: Vec<usize> = (0..channel).filter(|axis| *axis != 1).collect();
    let (centred, variance) = match site.mode {
        Mode::Train => {
            // Recomputed, they would be reduced over all devices again.
            let mean = b.save(b.mean(x, &axes)?)?;
            let centred = b.sub(x, b.spread(mean, x, &axes)?)?;
            let variance = b.save(b.mean(b.mul(centred, centred)?, &axes)?)?;
            let seen: usize = axes.iter().map(|axis| x.dim(*axis)).product();
            let unbiased = seen as f64 / seen.saturating_sub(1).max(1) as f64;
            renew(site, "running_mean", mean)?;
            renew(site, "running_var", b.scale(variance, unbiased)?)?;
            (centred, variance)
        }
        Mode::Evaluate => {
            let centred = b.sub(x, site.get("running_mean")?)?;
            (centred, site.get("running_var")?)
        }
    };
    let mut scale = b.rsqrt(b.shift(variance, BATCH_NORM_EPS)?)?;
    if let Some(weight) = site.find("weight") {
        scale = b.mul(scale, weight)?;
    }
    let y = match site.mode {
        Mode::Train => b.mul(centred, b.spread(scale, x, &axes)?)?,
        Mode::Evaluate => b.mul(centred, scale)?,
    };
    match site.find("bias") {
        Some(bias) => b.add(y, bias),
        None => Ok(y),
    }
}

/// As [`batch_norm`] of `x` [B * views, .., channels], where the views of each
/// picture are side by side; the result has the shape and type of `x`.
pub fn batch_norm_of_views(site: &Site, x: Value, views: usize) -> Result<Value> {
    let b = site.b;
    let dims = [&[x.dim(0) / views.max(1), views], &x.dims()[1..]].concat();
    let y = batch_norm(site, b.reshape(x, &dims)?)?;
    b.convert(b.reshape(y, x.dims())?, x.dtype())
}

/// `seen` is [channels] or [views, channels].
fn renew(site: &Site, name: &str, seen: Value) -> Result<()> {
    let b = site.b;
    let seen = b.stop_gradient(seen)?;
    let mut running = site.get(name)?;
    let views = if seen.rank() == 1 { 1 } else { seen.dim(0) };
    let seen = b.reshape(seen, &[views, running.dim(0)])?;
    for view in 0..views {
        let seen = b.slice_axis(seen, 0, view, view + 1)?;
        let seen = b.reshape(seen, running.dims())?;
        let step = b.scale(b.sub(seen, running)?, BATCH_NORM_MOMENTUM)?;
        running = b.add(running, step)?;
    }
    site.set(name, running);
    Ok(())
}

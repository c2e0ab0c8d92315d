//! Projection and prediction heads: MLPs with batch normalisation (Sec. 4,
//! "MLP heads").

use crate::config::Head;
use crate::graph::{Result, Value};
use crate::nn::{Init, Site, Spec, batch_norm, batch_norm_specs, linear, linear_specs, under};

/// Layer `i` is linear `3 i` and norm `3 i + 1` of the public code's
/// sequential module (whose `3 i + 2` is the ReLU). Linear layers have no
/// bias, the last norm neither gain nor bias.
pub fn specs(head: &Head, inputs: usize) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut inputs = inputs;
    for i in 0..head.layers {
        let last = i + 1 == head.layers;
        let outputs = if last { head.out } else { head.hidden };
        let init = Init::fan_in(inputs);
        let linear = linear_specs(inputs, outputs, false, init);
        specs.extend(under(&(3 * i).to_string(), linear));
        let norm = batch_norm_specs(outputs, !last);
        specs.extend(under(&(3 * i + 1).to_string(), norm));
        inputs = outputs;
    }
    specs
}

/// `x` [B, inputs] or [B, views, inputs] to as many vectors of `out`, f32:
/// linear and BN (whose statistics are of each view by itself), with ReLU
/// between layers. Matrix products are in the compute type.
pub fn head(site: &Site, config: &Head, x: Value) -> Result<Value> {
    let b = site.b;
    let _scope = site.enter();
    let mut x = x;
    for i in 0..config.layers {
        let y = b.convert(x, site.compute)?;
        let y = linear(&site.at(&(3 * i).to_string()), y)?;
        x = batch_norm(&site.at(&(3 * i + 1).to_string()), y)?;
        if i + 1 < config.layers {
            x = b.max(x, b.full_like(x, 0.0)?)?;
        }
    }
    Ok(x)
}

//! Projection and prediction heads: MLPs with or without batch normalisation
//! (Sec. 5, "MLP heads").

use crate::config::{Head, HeadNorm};
use crate::graph::{DType, Result, Value};
use crate::nn::{
    Init, Site, Spec, batch_norm, batch_norm_specs, linear, linear_specs, relu, under,
};

/// Layer `i` is linear `3 i` and norm `3 i + 1` of the public code's
/// sequential module (whose `3 i + 2` is the ReLU). The last norm has neither
/// gain nor bias. Of the linear layers, hidden ones without a norm have a bias
/// in its place; others have none.
pub fn specs(head: &Head, inputs: usize) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut inputs = inputs;
    for i in 0..head.layers {
        let last = i + 1 == head.layers;
        let outputs = if last { head.out } else { head.hidden };
        let init = Init::fan_in(inputs);
        let bias = !last && !has_norm(head, i);
        let linear = linear_specs(inputs, outputs, bias, init);
        specs.extend(under(&(3 * i).to_string(), linear));
        if has_norm(head, i) {
            let norm = batch_norm_specs(outputs, !last);
            specs.extend(under(&(3 * i + 1).to_string(), norm));
        }
        inputs = outputs;
    }
    specs
}

fn has_norm(head: &Head, layer: usize) -> bool {
    match head.norm {
        HeadNorm::All => true,
        HeadNorm::Hidden => layer + 1 < head.layers,
        HeadNorm::None => false,
    }
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
        x = match has_norm(config, i) {
            true => batch_norm(&site.at(&(3 * i + 1).to_string()), y)?,
            false => b.convert(y, DType::F32)?,
        };
        if i + 1 < config.layers {
            x = relu(site, x)?;
        }
    }
    Ok(x)
}

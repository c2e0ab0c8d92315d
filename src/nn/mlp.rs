use std::f64::consts::FRAC_1_SQRT_2;

use super::{Init, Site, Spec, linear, linear_specs, under};
use crate::graph::{Result, Value};

/// timm's names: `fc1` [hidden, dim] and `fc2` [dim, hidden].
pub fn mlp_specs(dim: usize, hidden: usize) -> Vec<Spec> {
    let init = Init::xavier(dim, hidden);
    under("fc1", linear_specs(dim, hidden, true, init))
        .chain(under("fc2", linear_specs(hidden, dim, true, init)))
        .collect()
}

/// Two linear layers with GELU between.
pub fn mlp(site: &Site, x: Value) -> Result<Value> {
    let _scope = site.enter();
    let x = linear(&site.at("fc1"), x)?;
    linear(&site.at("fc2"), gelu(site, x)?)
}

/// The exact form: x/2 (1 + erf(x / sqrt 2)).
pub fn gelu(site: &Site, x: Value) -> Result<Value> {
    let b = site.b;
    let erf = b.erf(b.scale(x, FRAC_1_SQRT_2)?)?;
    b.mul(b.scale(x, 0.5)?, b.shift(erf, 1.0)?)
}

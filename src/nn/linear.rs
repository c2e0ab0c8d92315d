use super::{Init, Site, Spec};
use crate::graph::{Builder, Result, Value};

/// `weight` [out, in], started by `init`, and `bias` [out], started at 0.
pub fn linear_specs(inputs: usize, outputs: usize, bias: bool, init: Init) -> Vec<Spec> {
    let mut specs = vec![Spec::trained("weight", &[outputs, inputs], init)];
    if bias {
        specs.push(Spec::trained("bias", &[outputs], Init::Zeros));
    }
    specs
}

/// `x` [.., in] -> [.., out], in the type of `x`. A bias is added where the
/// site has one.
pub fn linear(site: &Site, x: Value) -> Result<Value> {
    let _scope = site.enter();
    affine(site.b, x, site.get("weight")?, site.find("bias"))
}

/// As [`linear`], of a given weight and bias.
pub(super) fn affine(b: &Builder, x: Value, weight: Value, bias: Option<Value>) -> Result<Value> {
    let weight = b.convert(weight, x.dtype())?;
    let y = b.dot(x, weight, &[x.rank().saturating_sub(1)], &[1])?;
    match bias {
        Some(bias) => b.add(y, b.convert(bias, x.dtype())?),
        None => Ok(y),
    }
}

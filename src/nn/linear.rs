use super::{Init, Site, Spec};
use crate::graph::{Result, Value};

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
    let b = site.b;
    let _scope = site.enter();
    let weight = b.convert(site.get("weight")?, x.dtype())?;
    let y = b.dot(x, weight, &[x.rank().saturating_sub(1)], &[1])?;
    match site.find("bias") {
        Some(bias) => b.add(y, b.convert(bias, x.dtype())?),
        None => Ok(y),
    }
}

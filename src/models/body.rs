//! Parts of a backbone as closed functions, which a lowering can recompute or
//! loop over.

use crate::graph::{Builder, DType, Graph, Result, Shape, Value};
use crate::nn::{Mode, Role, Site, Spec, Variables};

/// `f` as a function of x and of the variables `specs` of the site. It gives
/// what `f` gives and, in training, the new value of each buffer.
pub fn closed(
    site: &Site,
    specs: &[Spec],
    x: Value,
    f: impl FnOnce(&Site, Value) -> Result<Value>,
) -> Result<Graph> {
    let b = Builder::new();
    let x = b.input("x", x.shape);
    let own = specs.iter().map(|spec| {
        let shape = Shape::new(DType::F32, &spec.dims);
        (spec.name.clone(), b.input(&spec.name, shape))
    });
    let variables = Variables::new(own.collect::<Vec<_>>());
    let inner = Site::new(&b, &variables, site.compute, site.mode);
    b.output("y", f(&inner, x)?);
    for spec in renewed(site, specs) {
        b.output(&spec.name, variables.get(&spec.name)?);
    }
    b.finish()
}

/// What a function of [`closed`] takes after x.
pub fn arguments(site: &Site, specs: &[Spec]) -> Result<Vec<Value>> {
    specs.iter().map(|spec| site.get(&spec.name)).collect()
}

/// Puts the new values of buffers, which a function of [`closed`] gives after
/// its result, in the place of the old ones.
pub fn renew(site: &Site, specs: &[Spec], new: &[Value]) {
    for (spec, value) in renewed(site, specs).zip(new) {
        site.set(&spec.name, *value);
    }
}

fn renewed<'a>(site: &Site, specs: &'a [Spec]) -> impl Iterator<Item = &'a Spec> {
    let training = site.mode == Mode::Train;
    specs
        .iter()
        .filter(move |spec| training && spec.role == Role::Buffer)
}

/// Applies `f`, which has the variables `specs`; its inner values are computed
/// again for the gradient if so wished.
pub fn part(
    site: &Site,
    specs: &[Spec],
    recomputed: bool,
    x: Value,
    f: impl FnOnce(&Site, Value) -> Result<Value>,
) -> Result<Value> {
    if !recomputed {
        return f(site, x);
    }
    let body = closed(site, specs, x, f)?;
    let args = [vec![x], arguments(site, specs)?].concat();
    let found = site.b.remat(body, &args)?;
    renew(site, specs, &found[1..]);
    Ok(found[0])
}

//! Softmax, as one op for its derivative's sake.

use std::borrow::Cow;

use super::{Emission, Operation, Vjp, arity};
use crate::graph::builder::function;
use crate::graph::{Builder, DType, Graph, Result, Shape, Value};

/// Softmax along the last axis, in the type of the operand; computed in f32
/// where that is narrower.
///
/// The derivative is taken from the result alone: dx = y (ct - sum(ct y)). So
/// the reverse walk keeps the rounded weights, which the product that they
/// weigh keeps anyway, and neither scores nor exponentials: of attention, the
/// largest arrays there are.
#[derive(Clone, Debug)]
pub struct Softmax;

/// The type that softmax of a type is computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

fn body(x: Shape) -> Result<Graph> {
    function(&[x], |b, args| {
        let last = [x.rank() - 1];
        let wide = b.convert(args[0], wide(x.dtype))?;
        let highest = b.reduce_max(wide, &last)?;
        let e = b.exp(b.sub(wide, b.spread(highest, wide, &last)?)?)?;
        let total = b.sum(e, &last)?;
        let y = b.div(e, b.spread(total, e, &last)?)?;
        Ok(vec![b.convert(y, x.dtype)?])
    })
}

impl Operation for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if !x.dtype.is_float() {
            return Err(format!("of {}s", x.dtype));
        }
        match x.dims().last() {
            None | Some(0) => Err("there is no last axis with elements".into()),
            Some(_) => Ok(vec![x]),
        }
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let b = rule.b;
        let x = rule.operands[0];
        let last = [x.rank() - 1];
        let wide = wide(x.dtype());
        let y = b.convert(rule.results[0], wide)?;
        let weighted = b.mul(b.convert(rule.ct(), wide)?, y)?;
        let total = b.sum(weighted, &last)?;
        let shared = b.mul(y, b.spread(total, y, &last)?)?;
        Ok(vec![Some(b.convert(b.sub(weighted, shared)?, x.dtype())?)])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let body = body(operands[0]);
        Emission::Inline(Cow::Owned(
            body.expect("the body of a softmax that was inferred is valid"),
        ))
    }

    /// A maximum, a subtraction, an exponential, a sum and a division each.
    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        5 * operands[0].len() as u64
    }
}

impl Builder {
    /// Softmax of `x` along its last axis.
    pub fn softmax(&self, x: Value) -> Result<Value> {
        self.push1(Softmax, &[x])
    }
}

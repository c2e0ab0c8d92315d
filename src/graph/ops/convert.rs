//! Ops that change the element type.

use super::{Emission, Operation, Vjp, arity};
use crate::graph::{Builder, DType, Result, Shape, Value};

/// Changes the element type, keeping the value as nearly as it can.
#[derive(Clone, Debug)]
pub struct Convert {
    pub to: DType,
}

impl Operation for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        Ok(vec![x.with_dtype(self.to)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let from = rule.operands[0].dtype();
        if !from.is_float() || !self.to.is_float() {
            return rule.none();
        }
        Ok(vec![Some(rule.b.convert(rule.ct(), from)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.convert", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Reads the bits as another type of the same width.
#[derive(Clone, Debug)]
pub struct BitcastConvert {
    pub to: DType,
}

impl Operation for BitcastConvert {
    fn name(&self) -> &'static str {
        "bitcast_convert"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if x.dtype.bytes() != self.to.bytes() {
            return Err(format!("{} and {} differ in width", x.dtype, self.to));
        }
        Ok(vec![x.with_dtype(self.to)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(self.name(), "it reads bits, not numbers"))
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.bitcast_convert", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// `x` in type `to`; `x` itself if it has it already.
    pub fn convert(&self, x: Value, to: DType) -> Result<Value> {
        if x.dtype() == to {
            Ok(x)
        } else {
            self.push1(Convert { to }, &[x])
        }
    }

    pub fn bitcast_convert(&self, x: Value, to: DType) -> Result<Value> {
        self.push1(BitcastConvert { to }, &[x])
    }
}

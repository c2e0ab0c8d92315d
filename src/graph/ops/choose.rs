//! Comparing, choosing between and bounding elements.

use super::{Emission, Operation, Vjp, arity};
use crate::graph::{Builder, DType, Result, Shape, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Debug)]
pub struct Compare {
    pub direction: Comparison,
    /// Floats in IEEE 754's total order, in which NaNs lie at the ends and
    /// every order is decided; else NaN compares to nothing.
    pub total: bool,
}

impl Operation for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, y] = arity(operands)?;
        if x != y {
            return Err("the shapes must be equal".into());
        }
        Ok(vec![x.with_dtype(DType::Pred)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        rule.none()
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let direction = match self.direction {
            Comparison::Eq => "EQ",
            Comparison::Ne => "NE",
            Comparison::Lt => "LT",
            Comparison::Le => "LE",
            Comparison::Gt => "GT",
            Comparison::Ge => "GE",
        };
        let kind = match operands[0].dtype {
            d if d.is_float() && self.total => "TOTALORDER",
            d if d.is_float() => "FLOAT",
            DType::Pred => "UNSIGNED",
            d if d.is_unsigned() => "UNSIGNED",
            _ => "SIGNED",
        };
        Emission::op(
            "stablehlo.compare",
            vec![
                (
                    "comparison_direction",
                    format!("#stablehlo<comparison_direction {direction}>"),
                ),
                (
                    "compare_type",
                    format!("#stablehlo<comparison_type {kind}>"),
                ),
            ],
        )
    }

    fn flops(&self, _: &[Shape], results: &[Shape]) -> u64 {
        results[0].len() as u64
    }
}

/// `operands[0]` chooses between the others.
#[derive(Clone, Debug)]
pub struct Select;

impl Operation for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [p, x, y] = arity(operands)?;
        if x != y {
            return Err("both choices must have one shape".into());
        }
        if p != x.with_dtype(DType::Pred) {
            return Err(format!(
                "the predicate must be {}",
                x.with_dtype(DType::Pred)
            ));
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, p) = (rule.b, rule.ct(), rule.operands[0]);
        let zero = b.full_like(ct, 0.0)?;
        Ok(vec![
            None,
            rule.when(1, || b.select(p, ct, zero))?,
            rule.when(2, || b.select(p, zero, ct))?,
        ])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.select", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// `min(max(x, low), high)`; operands are low, x, high.
#[derive(Clone, Debug)]
pub struct Clamp;

impl Operation for Clamp {
    fn name(&self) -> &'static str {
        "clamp"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [low, x, high] = arity(operands)?;
        if low != x || high != x || x.dtype == DType::Pred {
            return Err("bounds must have the shape and type of the number".into());
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct) = (rule.b, rule.ct());
        let [low, x, high] = [rule.operands[0], rule.operands[1], rule.operands[2]];
        let zero = b.full_like(ct, 0.0)?;
        let below = b.compare(Comparison::Lt, x, low)?;
        let above = b.compare(Comparison::Gt, x, high)?;
        Ok(vec![
            rule.when(0, || b.select(below, ct, zero))?,
            rule.when(1, || b.select(b.or(below, above)?, zero, ct))?,
            rule.when(2, || b.select(above, ct, zero))?,
        ])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.clamp", Vec::new())
    }

    fn flops(&self, _: &[Shape], results: &[Shape]) -> u64 {
        results[0].len() as u64
    }
}

impl Builder {
    pub fn compare(&self, direction: Comparison, x: Value, y: Value) -> Result<Value> {
        let [x, y] = self.broadcast_together(x, y)?;
        self.push1(
            Compare {
                direction,
                total: false,
            },
            &[x, y],
        )
    }

    /// `x` where `p`, else `y`; all three broadcast together.
    pub fn select(&self, p: Value, x: Value, y: Value) -> Result<Value> {
        let [x, y] = self.broadcast_together(x, y)?;
        let p = self.broadcast_to(p, x.dims())?;
        self.push1(Select, &[p, x, y])
    }

    /// `x` held between two numbers.
    pub fn clamp(&self, low: f64, x: Value, high: f64) -> Result<Value> {
        self.push1(
            Clamp,
            &[self.full_like(x, low)?, x, self.full_like(x, high)?],
        )
    }
}

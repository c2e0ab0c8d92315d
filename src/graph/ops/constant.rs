//! Values that need no operand.

use super::{Emission, Operation, Vjp, arity};
use crate::graph::{Builder, DType, Result, Shape, Value};

/// The elements of a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// The same number everywhere.
    Splat(f64),
    /// All elements, in row-major order: for a handful, since large tables
    /// are computed from iota or passed as arguments.
    Elements(Vec<f64>),
}

#[derive(Clone, Debug)]
pub struct Constant {
    pub shape: Shape,
    pub literal: Literal,
}

/// Constants with more elements than this are refused.
const MAX_ELEMENTS: usize = 4096;

impl Operation for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [] = arity(operands)?;
        if let Literal::Elements(values) = &self.literal {
            if values.len() != self.shape.len() {
                return Err(format!("{} elements for {}", values.len(), self.shape));
            }
            if values.len() > MAX_ELEMENTS {
                return Err(format!(
                    "{} elements; over {MAX_ELEMENTS}, compute them from iota or pass an argument",
                    values.len()
                ));
            }
        }
        Ok(vec![self.shape])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        rule.none()
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        let elements = match &self.literal {
            Literal::Splat(value) => number(self.shape.dtype, *value),
            Literal::Elements(values) => nested(self.shape, values),
        };
        let value = format!("dense<{elements}> : {}", self.shape.mlir());
        Emission::op("stablehlo.constant", vec![("value", value)])
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Elements in nested brackets, as MLIR wants them.
fn nested(shape: Shape, values: &[f64]) -> String {
    match shape.dims() {
        [] => number(shape.dtype, values[0]),
        [_, inner @ ..] => {
            let row = inner.iter().product::<usize>().max(1);
            let rows: Vec<String> = values
                .chunks(row)
                .map(|r| nested(shape.with_dims(inner), r))
                .collect();
            format!("[{}]", rows.join(", "))
        }
    }
}

/// A number that reads back as the same value of type `dtype`.
fn number(dtype: DType, value: f64) -> String {
    match dtype {
        DType::Pred => (value != 0.0).to_string(),
        // Casts saturate: an infinity is the type's largest or smallest.
        DType::I8 => (value as i8).to_string(),
        DType::I32 => (value as i32).to_string(),
        DType::I64 => (value as i64).to_string(),
        DType::U8 => (value as u8).to_string(),
        DType::U32 => (value as u32).to_string(),
        DType::U64 => (value as u64).to_string(),
        DType::F64 if !value.is_finite() => format!("0x{:016X}", value.to_bits()),
        DType::F32 if !value.is_finite() => format!("0x{:08X}", (value as f32).to_bits()),
        DType::BF16 if !value.is_finite() => format!("0x{:04X}", (value as f32).to_bits() >> 16),
        DType::F16 if !value.is_finite() => {
            let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
            format!(
                "0x{:04X}",
                sign + if value.is_nan() { 0x7E00 } else { 0x7C00 }
            )
        }
        DType::F64 => decimal(&format!("{value:e}")),
        // The plugin parses a decimal as f64 and rounds it; the short form is
        // used only where that gives the f32 back.
        _ => {
            let narrow = value as f32;
            let short = format!("{narrow:e}");
            if short.parse::<f64>().is_ok_and(|v| v as f32 == narrow) {
                decimal(&short)
            } else {
                decimal(&format!("{:e}", f64::from(narrow)))
            }
        }
    }
}

/// MLIR's floats need a point: `1e0` becomes `1.0e0`.
fn decimal(scientific: &str) -> String {
    match scientific.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => scientific.into(),
    }
}

/// Indices along `axis`.
#[derive(Clone, Debug)]
pub struct Iota {
    pub shape: Shape,
    pub axis: usize,
}

impl Operation for Iota {
    fn name(&self) -> &'static str {
        "iota"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [] = arity(operands)?;
        super::check_axes(&[self.axis], self.shape.rank(), "axis")?;
        Ok(vec![self.shape])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        rule.none()
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.iota",
            vec![("iota_dimension", format!("{} : i64", self.axis))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// A tensor filled with `value`.
    pub fn full(&self, shape: Shape, value: f64) -> Result<Value> {
        self.push1(
            Constant {
                shape,
                literal: Literal::Splat(value),
            },
            &[],
        )
    }

    /// A scalar.
    pub fn scalar(&self, dtype: DType, value: f64) -> Result<Value> {
        self.full(Shape::scalar(dtype), value)
    }

    /// A tensor of the shape of `like`, filled with `value`.
    pub fn full_like(&self, like: Value, value: f64) -> Result<Value> {
        self.full(like.shape, value)
    }

    /// A small table of numbers, in row-major order.
    pub fn table(&self, shape: Shape, elements: Vec<f64>) -> Result<Value> {
        self.push1(
            Constant {
                shape,
                literal: Literal::Elements(elements),
            },
            &[],
        )
    }

    /// Indices along `axis`.
    pub fn iota(&self, shape: Shape, axis: usize) -> Result<Value> {
        self.push1(Iota { shape, axis }, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_so_that_they_read_back() {
        let check = |dtype, value: f64, expected: &str| assert_eq!(number(dtype, value), expected);
        check(DType::F32, 1.0, "1.0e0");
        check(DType::F32, 0.1, "1e-1".replace("1e", "1.0e").as_str());
        check(DType::F32, f64::NEG_INFINITY, "0xFF800000");
        check(DType::BF16, f64::INFINITY, "0x7F80");
        check(DType::I32, -3.0, "-3");
        check(DType::I64, f64::INFINITY, "9223372036854775807");
        check(DType::U8, f64::NEG_INFINITY, "0");
        check(DType::Pred, 1.0, "true");
    }
}

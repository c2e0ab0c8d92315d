//! Ops of two operands that work on each element by itself.

use super::{Comparison, Emission, Operation, Vjp, arity};
use crate::graph::{Builder, DType, Result, Shape, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    Add,
    And,
    Div,
    Max,
    Min,
    Mul,
    Or,
    Pow,
    Rem,
    ShiftLeft,
    ShiftRightLogical,
    Sub,
    Xor,
}

impl BinaryKind {
    pub const ALL: [Self; 13] = [
        Self::Add,
        Self::And,
        Self::Div,
        Self::Max,
        Self::Min,
        Self::Mul,
        Self::Or,
        Self::Pow,
        Self::Rem,
        Self::ShiftLeft,
        Self::ShiftRightLogical,
        Self::Sub,
        Self::Xor,
    ];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Add => ("add", "stablehlo.add"),
            Self::And => ("and", "stablehlo.and"),
            Self::Div => ("divide", "stablehlo.divide"),
            Self::Max => ("maximum", "stablehlo.maximum"),
            Self::Min => ("minimum", "stablehlo.minimum"),
            Self::Mul => ("multiply", "stablehlo.multiply"),
            Self::Or => ("or", "stablehlo.or"),
            Self::Pow => ("power", "stablehlo.power"),
            Self::Rem => ("remainder", "stablehlo.remainder"),
            Self::ShiftLeft => ("shift_left", "stablehlo.shift_left"),
            Self::ShiftRightLogical => ("shift_right_logical", "stablehlo.shift_right_logical"),
            Self::Sub => ("subtract", "stablehlo.subtract"),
            Self::Xor => ("xor", "stablehlo.xor"),
        }
    }

    /// Whether the op takes elements of this type.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Self::And | Self::Or | Self::Xor => dtype == DType::Pred || dtype.is_int(),
            Self::ShiftLeft | Self::ShiftRightLogical => dtype.is_int(),
            Self::Pow => dtype.is_float(),
            _ => dtype != DType::Pred,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub kind: BinaryKind,
}

impl Operation for Binary {
    fn name(&self) -> &'static str {
        self.kind.names().0
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, y] = arity(operands)?;
        if x != y {
            return Err("the shapes must be equal".into());
        }
        if !self.kind.takes(x.dtype) {
            return Err(format!("not defined for elements of type {}", x.dtype));
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, z) = (rule.b, rule.ct(), rule.results[0]);
        let [x, y] = [rule.operands[0], rule.operands[1]];
        let pair = |dx: &dyn Fn() -> Result<Value>, dy: &dyn Fn() -> Result<Value>| {
            Ok(vec![rule.when(0, dx)?, rule.when(1, dy)?])
        };
        match self.kind {
            BinaryKind::Add => pair(&|| Ok(ct), &|| Ok(ct)),
            BinaryKind::Sub => pair(&|| Ok(ct), &|| b.neg(ct)),
            BinaryKind::Mul => pair(&|| b.mul(ct, y), &|| b.mul(ct, x)),
            // d(x/y)/dy = -(x/y)/y
            BinaryKind::Div => pair(&|| b.div(ct, y), &|| b.neg(b.div(b.mul(ct, z)?, y)?)),
            // d(x^y) = y x^(y-1) dx + x^y ln(x) dy, the latter 0 at x = 0.
            BinaryKind::Pow => pair(
                &|| {
                    let less = b.sub(y, b.full_like(y, 1.0)?)?;
                    b.mul(ct, b.mul(y, b.pow(x, less)?)?)
                },
                &|| {
                    let zero = b.full_like(x, 0.0)?;
                    let is_zero = b.compare(Comparison::Eq, x, zero)?;
                    let safe = b.select(is_zero, b.full_like(x, 1.0)?, x)?;
                    b.mul(ct, b.mul(z, b.log(safe)?)?)
                },
            ),
            BinaryKind::Max | BinaryKind::Min => {
                // Where both are equal, each takes half: the subgradient that
                // is symmetric in its arguments.
                let half = b.mul(ct, b.full_like(ct, 0.5)?)?;
                let zero = b.full_like(ct, 0.0)?;
                let equal = b.compare(Comparison::Eq, x, y)?;
                let side = |wins: Value| {
                    let hit = b.compare(Comparison::Eq, wins, z)?;
                    b.select(equal, half, b.select(hit, ct, zero)?)
                };
                pair(&|| side(x), &|| side(y))
            }
            BinaryKind::Rem => pair(&|| Ok(ct), &|| {
                // x = trunc(x/y) y + rem, so d rem/dy = -trunc(x/y).
                let quotient = b.div(b.sub(x, z)?, y)?;
                b.neg(b.mul(ct, b.round_nearest_even(quotient)?)?)
            }),
            BinaryKind::And
            | BinaryKind::Or
            | BinaryKind::Xor
            | BinaryKind::ShiftLeft
            | BinaryKind::ShiftRightLogical => rule.none(),
        }
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(self.kind.names().1, Vec::new())
    }

    fn flops(&self, _: &[Shape], results: &[Shape]) -> u64 {
        results[0].len() as u64
    }
}

/// Declares builder methods of two operands, broadcast against each other.
macro_rules! binary {
    ($($method:ident $kind:ident),* $(,)?) => {
        impl Builder {
            $(pub fn $method(&self, x: Value, y: Value) -> Result<Value> {
                let [x, y] = self.broadcast_together(x, y)?;
                self.push1(Binary { kind: BinaryKind::$kind }, &[x, y])
            })*
        }
    };
}

binary!(
    add Add, and And, div Div, max Max, min Min, mul Mul, or Or, pow Pow, rem Rem,
    shift_left ShiftLeft, shift_right_logical ShiftRightLogical, sub Sub, xor Xor,
);

impl Builder {
    /// `x * factor`.
    pub fn scale(&self, x: Value, factor: f64) -> Result<Value> {
        self.mul(x, self.full_like(x, factor)?)
    }

    /// `x + number`.
    pub fn shift(&self, x: Value, number: f64) -> Result<Value> {
        self.add(x, self.full_like(x, number)?)
    }
}

//! Ops of one operand that work on each element by itself.

use super::{Emission, Operation, Vjp, arity};
use crate::graph::{Builder, DType, Result, Shape, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryKind {
    Abs,
    Ceil,
    Cosine,
    Erf,
    Exp,
    Expm1,
    Floor,
    IsFinite,
    Log,
    Log1p,
    Logistic,
    Neg,
    Not,
    Popcnt,
    RoundNearestEven,
    Rsqrt,
    Sign,
    Sine,
    Sqrt,
    Tanh,
}

impl UnaryKind {
    pub const ALL: [Self; 20] = [
        Self::Abs,
        Self::Ceil,
        Self::Cosine,
        Self::Erf,
        Self::Exp,
        Self::Expm1,
        Self::Floor,
        Self::IsFinite,
        Self::Log,
        Self::Log1p,
        Self::Logistic,
        Self::Neg,
        Self::Not,
        Self::Popcnt,
        Self::RoundNearestEven,
        Self::Rsqrt,
        Self::Sign,
        Self::Sine,
        Self::Sqrt,
        Self::Tanh,
    ];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Abs => ("abs", "stablehlo.abs"),
            Self::Ceil => ("ceil", "stablehlo.ceil"),
            Self::Cosine => ("cosine", "stablehlo.cosine"),
            // StableHLO has no error function; CHLO's is what plugins know.
            Self::Erf => ("erf", "chlo.erf"),
            Self::Exp => ("exponential", "stablehlo.exponential"),
            Self::Expm1 => ("exponential_minus_one", "stablehlo.exponential_minus_one"),
            Self::Floor => ("floor", "stablehlo.floor"),
            Self::IsFinite => ("is_finite", "stablehlo.is_finite"),
            Self::Log => ("log", "stablehlo.log"),
            Self::Log1p => ("log_plus_one", "stablehlo.log_plus_one"),
            Self::Logistic => ("logistic", "stablehlo.logistic"),
            Self::Neg => ("negate", "stablehlo.negate"),
            Self::Not => ("not", "stablehlo.not"),
            Self::Popcnt => ("popcnt", "stablehlo.popcnt"),
            Self::RoundNearestEven => ("round_nearest_even", "stablehlo.round_nearest_even"),
            Self::Rsqrt => ("rsqrt", "stablehlo.rsqrt"),
            Self::Sign => ("sign", "stablehlo.sign"),
            Self::Sine => ("sine", "stablehlo.sine"),
            Self::Sqrt => ("sqrt", "stablehlo.sqrt"),
            Self::Tanh => ("tanh", "stablehlo.tanh"),
        }
    }

    /// Whether the op takes elements of this type.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Self::Not => dtype == DType::Pred || dtype.is_int(),
            Self::Popcnt => dtype.is_int(),
            Self::Abs | Self::Neg | Self::Sign => {
                dtype.is_float() || dtype.is_int() && !dtype.is_unsigned()
            }
            _ => dtype.is_float(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Unary {
    pub kind: UnaryKind,
}

impl Operation for Unary {
    fn name(&self) -> &'static str {
        self.kind.names().0
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if !self.kind.takes(x.dtype) {
            return Err(format!("not defined for elements of type {}", x.dtype));
        }
        Ok(vec![if self.kind == UnaryKind::IsFinite {
            x.with_dtype(DType::Pred)
        } else {
            x
        }])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, x, y) = (rule.b, rule.ct(), rule.operands[0], rule.results[0]);
        let scaled = |value: f64, by: Value| b.mul(b.full_like(by, value)?, by);
        let slope = match self.kind {
            UnaryKind::Ceil
            | UnaryKind::Floor
            | UnaryKind::IsFinite
            | UnaryKind::Not
            | UnaryKind::Popcnt
            | UnaryKind::RoundNearestEven
            | UnaryKind::Sign => return rule.none(),
            UnaryKind::Neg => return Ok(vec![Some(b.neg(ct)?)]),
            UnaryKind::Log => return Ok(vec![Some(b.div(ct, x)?)]),
            UnaryKind::Log1p => return Ok(vec![Some(b.div(ct, b.add(x, b.full_like(x, 1.0)?)?)?)]),
            UnaryKind::Sqrt => return Ok(vec![Some(b.div(scaled(0.5, ct)?, y)?)]),
            UnaryKind::Abs => b.sign(x)?,
            UnaryKind::Cosine => b.neg(b.sine(x)?)?,
            UnaryKind::Sine => b.cosine(x)?,
            // d erf = 2 / sqrt(pi) exp(-x^2)
            UnaryKind::Erf => {
                let bell = b.exp(b.neg(b.mul(x, x)?)?)?;
                scaled(std::f64::consts::FRAC_2_SQRT_PI, bell)?
            }
            UnaryKind::Exp => y,
            UnaryKind::Expm1 => b.add(y, b.full_like(y, 1.0)?)?,
            UnaryKind::Logistic => b.mul(y, b.sub(b.full_like(y, 1.0)?, y)?)?,
            // d x^(-1/2) = -1/2 y^3
            UnaryKind::Rsqrt => scaled(-0.5, b.mul(y, b.mul(y, y)?)?)?,
            UnaryKind::Tanh => b.sub(b.full_like(y, 1.0)?, b.mul(y, y)?)?,
        };
        Ok(vec![Some(b.mul(ct, slope)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(self.kind.names().1, Vec::new())
    }

    fn flops(&self, _: &[Shape], results: &[Shape]) -> u64 {
        results[0].len() as u64
    }
}

/// Declares builder methods of one operand.
macro_rules! unary {
    ($($method:ident $kind:ident),* $(,)?) => {
        impl Builder {
            $(pub fn $method(&self, x: Value) -> Result<Value> {
                self.push1(Unary { kind: UnaryKind::$kind }, &[x])
            })*
        }
    };
}

unary!(
    abs Abs, ceil Ceil, cosine Cosine, erf Erf, exp Exp, expm1 Expm1, floor Floor,
    is_finite IsFinite, log Log, log1p Log1p, logistic Logistic, neg Neg, not Not, popcnt Popcnt,
    round_nearest_even RoundNearestEven, rsqrt Rsqrt, sign Sign, sine Sine, sqrt Sqrt, tanh Tanh,
);

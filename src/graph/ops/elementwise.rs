//! Ops that work on each element by itself.

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
    pub fn compare(&self, direction: Comparison, x: Value, y: Value) -> Result<Value> {
        let [x, y] = self.broadcast_together(x, y)?;
        self.push1(Compare { direction }, &[x, y])
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

    /// `x * factor`.
    pub fn scale(&self, x: Value, factor: f64) -> Result<Value> {
        self.mul(x, self.full_like(x, factor)?)
    }

    /// `x + number`.
    pub fn shift(&self, x: Value, number: f64) -> Result<Value> {
        self.add(x, self.full_like(x, number)?)
    }
}

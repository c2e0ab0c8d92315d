//! Rows of ops that work on each element by itself.

use xla_moco::graph::ops::{
    Binary, BinaryKind, BitcastConvert, Clamp, Compare, Comparison, Convert, Select, Unary,
    UnaryKind,
};
use xla_moco::graph::{DType, Shape};

use crate::array::Array;
use crate::row::{FLOAT, Gradient, Operand, Row, f32s, fixed, float, given, i32s, pred};

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = UnaryKind::ALL.into_iter().map(unary).collect();
    rows.extend(BinaryKind::ALL.into_iter().map(binary));
    rows.extend(broadcasts());
    rows.extend(ties());
    rows.extend(comparisons());
    rows.extend(choices());
    rows.extend(conversions());
    rows
}

/// By its series, which is exact enough up to 2.
pub fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn unary(kind: UnaryKind) -> Row {
    let f: fn(f64) -> f64 = match kind {
        UnaryKind::Abs => f64::abs,
        UnaryKind::Ceil => f64::ceil,
        UnaryKind::Cosine => f64::cos,
        UnaryKind::Erf => erf,
        UnaryKind::Exp => f64::exp,
        UnaryKind::Expm1 => f64::exp_m1,
        UnaryKind::Floor => f64::floor,
        UnaryKind::IsFinite => |x| f64::from(u8::from(x.is_finite())),
        UnaryKind::Log => f64::ln,
        UnaryKind::Log1p => f64::ln_1p,
        UnaryKind::Logistic => |x| 1.0 / (1.0 + (-x).exp()),
        UnaryKind::Neg => |x| -x,
        UnaryKind::Not => |x| 1.0 - x,
        UnaryKind::Popcnt => |x| f64::from((x as u32).count_ones()),
        UnaryKind::RoundNearestEven => f64::round_ties_even,
        UnaryKind::Rsqrt => |x| 1.0 / x.sqrt(),
        UnaryKind::Sign => f64::signum,
        UnaryKind::Sine => f64::sin,
        UnaryKind::Sqrt => f64::sqrt,
        UnaryKind::Tanh => f64::tanh,
    };
    let operand = match kind {
        UnaryKind::Log | UnaryKind::Rsqrt | UnaryKind::Sqrt => float(&[2, 3], 0.25, 3.0),
        UnaryKind::Log1p => float(&[2, 3], -0.75, 3.0),
        UnaryKind::Not => pred(&[5]),
        UnaryKind::Popcnt => fixed(DType::U32, &[5], 0.0, f64::from(u32::MAX)),
        UnaryKind::IsFinite => given(
            Some(DType::F32),
            &[4],
            &[1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN],
        ),
        _ => float(&[2, 3], -2.0, 2.0),
    };
    let wrong = match kind {
        UnaryKind::Not => f32s(&[2]),
        _ => Shape::new(DType::Pred, &[2]),
    };
    Row::new(
        "Unary",
        format!("unary {kind:?}"),
        vec![operand],
        move |b, args| b.push(Unary { kind }, args),
        move |x| vec![x[0].map(f)],
    )
    .refuses(&[wrong], "not defined for elements of type")
    .refuses(&[f32s(&[2]), f32s(&[2])], "expected 1 operands, found 2")
}

fn binary_reference(kind: BinaryKind) -> fn(f64, f64) -> f64 {
    match kind {
        BinaryKind::Add => |x, y| x + y,
        BinaryKind::And => |x, y| f64::from(x as u32 & y as u32),
        BinaryKind::Div => |x, y| x / y,
        BinaryKind::Max => f64::max,
        BinaryKind::Min => f64::min,
        BinaryKind::Mul => |x, y| x * y,
        BinaryKind::Or => |x, y| f64::from(x as u32 | y as u32),
        BinaryKind::Pow => f64::powf,
        BinaryKind::Rem => |x, y| x % y,
        BinaryKind::ShiftLeft => |x, y| f64::from((x as u32).wrapping_shl(y as u32)),
        BinaryKind::ShiftRightLogical => |x, y| f64::from(x as u32 >> y as u32),
        BinaryKind::Sub => |x, y| x - y,
        BinaryKind::Xor => |x, y| f64::from(x as u32 ^ y as u32),
    }
}

/// Both operands; integers for ops on bits.
fn binary_operands(kind: BinaryKind, x: &[usize], y: &[usize]) -> [Operand; 2] {
    let words = |dims: &[usize]| fixed(DType::U32, dims, 0.0, f64::from(u32::MAX));
    match kind {
        BinaryKind::And | BinaryKind::Or | BinaryKind::Xor => [words(x), words(y)],
        BinaryKind::ShiftLeft | BinaryKind::ShiftRightLogical => {
            [words(x), fixed(DType::U32, y, 0.0, 31.0)]
        }
        BinaryKind::Pow => [float(x, 0.5, 2.0), float(y, -2.0, 2.0)],
        BinaryKind::Div | BinaryKind::Rem => [float(x, -4.0, 4.0), float(y, 0.75, 2.0)],
        _ => [float(x, -2.0, 2.0), float(y, -2.0, 2.0)],
    }
}

fn binary(kind: BinaryKind) -> Row {
    let f = binary_reference(kind);
    let wrong = match kind {
        BinaryKind::And | BinaryKind::Or | BinaryKind::Xor => f32s(&[2]),
        BinaryKind::ShiftLeft | BinaryKind::ShiftRightLogical => f32s(&[2]),
        _ => Shape::new(DType::Pred, &[2]),
    };
    Row::new(
        "Binary",
        format!("binary {kind:?}"),
        binary_operands(kind, &[2, 3], &[2, 3]).into(),
        move |b, args| b.push(Binary { kind }, args),
        move |x| vec![x[0].zip(&x[1], f)],
    )
    .refuses(&[wrong, wrong], "not defined for elements of type")
    .refuses(&[f32s(&[2]), f32s(&[3])], "the shapes must be equal")
    .refuses(&[f32s(&[2]), i32s(&[2])], "the shapes must be equal")
}

/// The builder's methods broadcast, and the gradient sums back.
fn broadcasts() -> Vec<Row> {
    let shapes: [(&[usize], &[usize]); 4] = [
        (&[2, 3], &[3]),
        (&[2, 1], &[1, 3]),
        (&[], &[2, 2]),
        (&[2, 1, 2], &[3, 1]),
    ];
    let kinds = [
        BinaryKind::Add,
        BinaryKind::Mul,
        BinaryKind::Div,
        BinaryKind::Max,
    ];
    let mut rows = Vec::new();
    for kind in kinds {
        for (x, y) in shapes {
            let f = binary_reference(kind);
            rows.push(
                Row::new(
                    "Binary",
                    format!("broadcast {kind:?} {x:?} {y:?}"),
                    binary_operands(kind, x, y).into(),
                    move |b, args| {
                        let (x, y) = (args[0], args[1]);
                        Ok(vec![match kind {
                            BinaryKind::Add => b.add(x, y)?,
                            BinaryKind::Mul => b.mul(x, y)?,
                            BinaryKind::Div => b.div(x, y)?,
                            _ => b.max(x, y)?,
                        }])
                    },
                    move |x| vec![x[0].zip(&x[1], f)],
                )
                .refuses(&[f32s(&[2, 3]), f32s(&[2])], "the shapes must be equal"),
            );
        }
    }
    rows
}

/// At kinks the gradient is the one that central differences see.
fn ties() -> Vec<Row> {
    let equal = || given(FLOAT, &[2], &[1.0, -1.0]);
    let both = |name: &str, kind: BinaryKind, x: Operand, y: Operand| {
        Row::new(
            "Binary",
            name,
            vec![x, y],
            move |b, args| b.push(Binary { kind }, args),
            move |x| vec![x[0].zip(&x[1], binary_reference(kind))],
        )
    };
    vec![
        both("maximum of equals", BinaryKind::Max, equal(), equal()),
        both("minimum of equals", BinaryKind::Min, equal(), equal()),
        both(
            "power of zero",
            BinaryKind::Pow,
            given(FLOAT, &[2], &[0.0, 0.0]),
            given(FLOAT, &[2], &[2.0, 3.0]),
        ),
    ]
}

fn comparisons() -> Vec<Row> {
    type Holds = fn(&f64, &f64) -> bool;
    let all: [(Comparison, Holds); 6] = [
        (Comparison::Eq, f64::eq),
        (Comparison::Ne, f64::ne),
        (Comparison::Lt, f64::lt),
        (Comparison::Le, f64::le),
        (Comparison::Gt, f64::gt),
        (Comparison::Ge, f64::ge),
    ];
    let mut rows = Vec::new();
    for (direction, f) in all {
        let reference =
            move |x: &[Array]| vec![x[0].zip(&x[1], |x, y| f64::from(u8::from(f(&x, &y))))];
        for dtype in [FLOAT, Some(DType::I32), Some(DType::U8), Some(DType::Pred)] {
            let (low, high) = match dtype {
                Some(DType::Pred) => (0.0, 1.0),
                Some(DType::U8) => (126.0, 130.0),
                _ => (-1.0, 1.0),
            };
            let operand = |dims: &[usize]| Operand {
                dtype,
                ..float(dims, low, high)
            };
            rows.push(
                Row::new(
                    "Compare",
                    format!("compare {direction:?} {dtype:?}"),
                    vec![operand(&[2, 4]), operand(&[4])],
                    move |b, args| Ok(vec![b.compare(direction, args[0], args[1])?]),
                    reference,
                )
                .refuses(&[f32s(&[2]), f32s(&[3])], "the shapes must be equal"),
            );
        }
    }
    // -NaN < -inf < -0 < 0 < inf < NaN
    let values = [f64::NAN, -0.0, 0.0, f64::NEG_INFINITY, f64::INFINITY];
    rows.push(Row::new(
        "Compare",
        "compare in total order",
        vec![
            given(Some(DType::F32), &[5, 1], &values),
            given(Some(DType::F32), &[1, 5], &values),
        ],
        |b, args| {
            let op = Compare {
                direction: Comparison::Lt,
                total: true,
            };
            let x = b.broadcast_to(args[0], &[5, 5])?;
            b.push(op, &[x, b.broadcast_to(args[1], &[5, 5])?])
        },
        |x| vec![x[0].zip(&x[1], |x, y| f64::from(u8::from(x.total_cmp(&y).is_lt())))],
    ));
    rows
}

fn choices() -> Vec<Row> {
    let choose = |p: &Array, x: &Array, y: &Array| {
        let dims = x.zip(y, |x, _| x).dims;
        let (p, x, y) = (p.broadcast(&dims), x.broadcast(&dims), y.broadcast(&dims));
        Array::from_fn(&dims, |i| if p.at(i) != 0.0 { x.at(i) } else { y.at(i) })
    };
    vec![
        Row::new(
            "Select",
            "select",
            vec![
                pred(&[2, 3]),
                float(&[2, 3], -1.0, 1.0),
                float(&[2, 3], -1.0, 1.0),
            ],
            |b, args| b.push(Select, args),
            move |x| vec![choose(&x[0], &x[1], &x[2])],
        )
        .refuses(
            &[Shape::new(DType::Pred, &[2]), f32s(&[2]), f32s(&[3])],
            "both choices must have one shape",
        )
        .refuses(
            &[i32s(&[2]), f32s(&[2]), f32s(&[2])],
            "the predicate must be 2xi1",
        ),
        Row::new(
            "Select",
            "broadcast select",
            vec![pred(&[3]), float(&[2, 3], -1.0, 1.0), float(&[], -1.0, 1.0)],
            |b, args| Ok(vec![b.select(args[0], args[1], args[2])?]),
            move |x| vec![choose(&x[0], &x[1], &x[2])],
        ),
        Row::new(
            "Clamp",
            "clamp with bounds as operands",
            vec![
                float(&[8], -1.0, 0.0),
                float(&[8], -2.0, 2.0),
                float(&[8], 0.25, 1.0),
            ],
            |b, args| b.push(Clamp, args),
            |x| vec![x[1].zip(&x[0], f64::max).zip(&x[2], f64::min)],
        )
        .refuses(
            &[f32s(&[2]), f32s(&[3]), f32s(&[2])],
            "bounds must have the shape and type of the number",
        ),
        Row::new(
            "Clamp",
            "clamp between numbers",
            vec![float(&[8], -2.0, 2.0)],
            |b, args| Ok(vec![b.clamp(-0.5, args[0], 0.75)?]),
            |x| vec![x[0].map(|x| x.clamp(-0.5, 0.75))],
        ),
        Row::new(
            "Binary",
            "scale and shift",
            vec![float(&[4], -2.0, 2.0)],
            |b, args| Ok(vec![b.shift(b.scale(args[0], 2.5)?, -1.0)?]),
            |x| vec![x[0].map(|x| x * 2.5 - 1.0)],
        ),
    ]
}

fn conversions() -> Vec<Row> {
    let to = |name: &str, operand: Operand, to: DType, f: fn(f64) -> f64| {
        Row::new(
            "Convert",
            name,
            vec![operand],
            move |b, args| b.push(Convert { to }, args),
            move |x| vec![x[0].map(f)],
        )
        .refuses(&[f32s(&[2]), f32s(&[2])], "expected 1 operands, found 2")
    };
    vec![
        Row::new(
            "Convert",
            "float to itself",
            vec![float(&[3], -2.0, 2.0)],
            |b, args| {
                let to = args[0].dtype();
                b.push(Convert { to }, args)
            },
            |x| vec![x[0].clone()],
        ),
        to(
            "float to i32",
            float(&[6], -9.0, 9.0),
            DType::I32,
            f64::trunc,
        ),
        to(
            "i32 to f32",
            fixed(DType::I32, &[4], -9.0, 9.0),
            DType::F32,
            |x| x,
        ),
        to(
            "u8 to bf16",
            fixed(DType::U8, &[4], 0.0, 255.0),
            DType::BF16,
            |x| x,
        ),
        to("predicate to f32", pred(&[4]), DType::F32, |x| x),
        to(
            "u64 to u32 keeps the lower bits",
            given(Some(DType::U64), &[2], &[4294967298.0, 7.0]),
            DType::U32,
            |x| f64::from(x as u64 as u32),
        ),
        Row::new(
            "BitcastConvert",
            "bits as f32",
            vec![given(
                Some(DType::U32),
                &[3],
                &[1.0f32, -0.1, 3e30].map(|x| f64::from(x.to_bits())),
            )],
            |b, args| Ok(vec![b.bitcast_convert(args[0], DType::F32)?]),
            |x| vec![x[0].map(|bits| f64::from(f32::from_bits(bits as u32)))],
        )
        .refuses(
            &[Shape::new(DType::U8, &[2])],
            "ui8 and f32 differ in width",
        ),
        Row::new(
            "BitcastConvert",
            "bits as themselves",
            vec![float(&[3], -1.0, 1.0)],
            |b, args| {
                let to = args[0].dtype();
                b.push(BitcastConvert { to }, args)
            },
            |x| vec![x[0].clone()],
        )
        .gradient(Gradient::Refused("it reads bits, not numbers")),
    ]
}

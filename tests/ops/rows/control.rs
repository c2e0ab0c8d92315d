//! Rows of ops that steer, call and loop.

use xla_moco::graph::ops::Comparison;
use xla_moco::graph::ops::{
    Case, CustomCall, Kept, MapChunks, OptimizationBarrier, Remat, Save, Scan, ScanBlock,
    ShardingConstraint, StopGradient, While,
};
use xla_moco::graph::{Builder, DType, Graph, Result, Shape, Sharding, Value};

use super::elementwise::erf;
use crate::array::Array;
use crate::row::{Gradient, Row, f32s, float, given, i32s};

pub fn rows() -> Vec<Row> {
    let mut rows = steering();
    rows.extend(branches());
    rows.extend(loops());
    rows
}

/// A closed function of arguments of the given shapes.
pub fn function(
    shapes: &[Shape],
    f: impl FnOnce(&Builder, &[Value]) -> Result<Vec<Value>>,
) -> Result<Graph> {
    let b = Builder::new();
    let args: Vec<Value> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| b.input(format!("x{i}"), *s))
        .collect();
    for (i, value) in f(&b, &args)?.into_iter().enumerate() {
        b.output(format!("y{i}"), value);
    }
    b.finish()
}

fn shapes(values: &[Value]) -> Vec<Shape> {
    values.iter().map(|v| v.shape).collect()
}

fn steering() -> Vec<Row> {
    let x = || float(&[2, 3], -1.0, 1.0);
    vec![
        Row::new(
            "StopGradient",
            "stop gradient",
            vec![x()],
            |b, args| b.push(StopGradient, args),
            |x| x.to_vec(),
        )
        .gradient(Gradient::Stopped)
        .refuses(&[f32s(&[2]), f32s(&[2])], "expected 1 operands, found 2"),
        Row::new(
            "Save",
            "save",
            vec![x()],
            |b, args| b.push(Save, args),
            |x| x.to_vec(),
        )
        .refuses(&[], "expected 1 operands, found 0"),
        // The kept value is the computed one.
        Row::new(
            "Kept",
            "kept",
            vec![x()],
            |b, args| b.push(Kept, &[args, args].concat()),
            |x| x.to_vec(),
        )
        .refuses(&[], "expected 2 operands, found 0"),
        Row::new(
            "OptimizationBarrier",
            "barrier",
            vec![x(), float(&[2], -1.0, 1.0)],
            |b, args| b.push(OptimizationBarrier, args),
            |x| x.to_vec(),
        )
        .refuses(&[], "nothing to hold back"),
        Row::new(
            "ShardingConstraint",
            "sharding constraint",
            vec![x()],
            |b, args| {
                let sharding = Sharding::split(2, 0);
                b.push(ShardingConstraint { sharding }, args)
            },
            |x| x.to_vec(),
        )
        .refuses(&[f32s(&[2])], "a sharding of 2 axes"),
        Row::new(
            "CustomCall",
            "custom call",
            vec![x()],
            |b, args| {
                let op = CustomCall {
                    target: "mhlo.erf".into(),
                    results: args.first().map(|x| x.shape).into_iter().collect(),
                    attributes: vec![
                        ("mhlo.attributes", "{}".into()),
                        ("mhlo.version", "1 : i64".into()),
                    ],
                };
                b.push(op, args)
            },
            |x| vec![x[0].map(erf)],
        )
        .gradient(Gradient::Refused("what the plugin computes is not known"))
        .refuses(&[], "a call needs a target and a result"),
    ]
}

fn branches() -> Vec<Row> {
    let number = |value: f64| given(Some(DType::I32), &[], &[value]);
    let by_number = |name: &'static str, value: f64, expected: fn(f64, f64) -> f64| {
        Row::new(
            "Case",
            name,
            vec![number(value), float(&[3], 0.5, 2.0), float(&[3], 0.5, 2.0)],
            |b, args| {
                let s = shapes(args.get(1..).unwrap_or_default());
                let branches = vec![
                    function(&s, |b, x| Ok(vec![b.mul(x[0], x[1])?]))?,
                    function(&s, |b, x| Ok(vec![b.tanh(x[0])?]))?,
                    function(&s, |b, x| Ok(vec![b.div(x[0], x[1])?]))?,
                ];
                b.push(Case { branches }, args)
            },
            move |x| vec![x[1].zip(&x[2], expected)],
        )
    };
    vec![
        by_number("case 0", 0.0, |x, y| x * y)
            .refuses(
                &[f32s(&[]), f32s(&[3]), f32s(&[3])],
                "f32 cannot choose one of 3 functions",
            )
            .refuses(
                &[Shape::scalar(DType::Pred), f32s(&[3]), f32s(&[3])],
                "i1 cannot choose one of 3 functions",
            ),
        by_number("case 1 leaves one operand out", 1.0, |x, _| x.tanh()),
        by_number("case out of range is the last", -7.0, |x, y| x / y),
        Row::new(
            "Case",
            "if",
            vec![
                given(Some(DType::Pred), &[], &[1.0]),
                given(Some(DType::Pred), &[], &[0.0]),
                float(&[3], 0.5, 2.0),
            ],
            |b, args| {
                let s = [args[2].shape];
                let both = |p: Value| {
                    let yes = function(&s, |b, x| Ok(vec![b.exp(x[0])?, x[0]]))?;
                    let no = function(&s, |b, x| Ok(vec![x[0], b.sqrt(x[0])?]))?;
                    b.cond(p, yes, no, &args[2..])
                };
                Ok([both(args[0])?, both(args[1])?].concat())
            },
            |x| {
                let x = &x[2];
                vec![x.map(f64::exp), x.clone(), x.clone(), x.map(f64::sqrt)]
            },
        ),
        Row::new(
            "Case",
            "branches without arguments",
            vec![given(Some(DType::Pred), &[], &[0.0])],
            |b, args| {
                let constant = |value| function(&[], |b, _| Ok(vec![b.scalar(DType::F32, value)?]));
                b.push(
                    Case {
                        branches: vec![constant(1.0)?, constant(2.0)?],
                    },
                    args,
                )
            },
            |_| vec![Array::scalar(2.0)],
        )
        .refuses(&[i32s(&[]), f32s(&[])], "the function takes ()"),
    ]
}

/// x tanh(w x): a block that passes one value on.
fn block(x: Shape, w: Shape) -> Result<Graph> {
    function(&[x, w], |b, args| {
        let inner = b.tanh(b.mul(args[0], args[1])?)?;
        Ok(vec![b.mul(args[0], inner)?])
    })
}

fn block_reference(x: f64, w: f64) -> f64 {
    x * (w * x).tanh()
}

fn blocks(x: &[Array]) -> Vec<Array> {
    let w = |i: usize| Array::from_fn(&[2], |k| x[1].at(&[i, k[0]]));
    let mut out = vec![x[0].clone()];
    for i in 0..3 {
        out.push(out[i].zip(&w(i), block_reference));
    }
    out
}

fn loops() -> Vec<Row> {
    let stacked = || vec![float(&[2], 0.5, 1.5), float(&[3, 2], 0.5, 1.5)];
    let scan_block = |saves: bool| {
        Row::new(
            "ScanBlock",
            format!("scan of blocks, saves {saves}"),
            stacked(),
            move |b, args| {
                let body = block(args[0].shape, args[0].shape)?;
                let op = ScanBlock {
                    body,
                    length: 3,
                    saves,
                };
                Ok(b.push(op, args)?[..1].to_vec())
            },
            |x| blocks(x)[3..].to_vec(),
        )
        .refuses(&[f32s(&[2]), f32s(&[4, 2])], "4x2xf32 has not 3 rows")
    };
    let scan = |reverse: bool| {
        Row::new(
            "Scan",
            format!("scan, reverse {reverse}"),
            stacked(),
            move |b, args| {
                let body = function(&[args[0].shape, args[0].shape], |b, x| {
                    let sum = b.add(x[0], x[1])?;
                    Ok(vec![sum, b.mul(sum, sum)?])
                })?;
                let op = Scan {
                    body,
                    carried: 1,
                    axis: 0,
                    length: 3,
                    reverse,
                };
                b.push(op, args)
            },
            move |x| {
                let sum = |i: usize, k: usize| {
                    let rows = if reverse { i..3 } else { 0..i + 1 };
                    x[0].at(&[k]) + rows.map(|j| x[1].at(&[j, k])).sum::<f64>()
                };
                let last = if reverse { 0 } else { 2 };
                vec![
                    Array::from_fn(&[2], |i| sum(last, i[0])),
                    Array::from_fn(&[3, 2], |i| sum(i[0], i[1]).powi(2)),
                ]
            },
        )
        .gradient(Gradient::Refused("differentiated as ScanBlock"))
        .refuses(&[f32s(&[2]), f32s(&[2])], "2xf32 has not 3 rows")
    };
    let map_chunks = Row::new(
        "MapChunks",
        "map of chunks",
        vec![
            float(&[6, 2], 0.5, 1.5),
            float(&[6], 0.5, 1.5),
            float(&[2], 0.5, 1.5),
        ],
        |b, args| {
            let rows = |dims: &[usize]| args[0].shape.with_dims(dims);
            let body = function(&[rows(&[2, 2]), rows(&[2]), rows(&[2])], |b, x| {
                let inner = b.tanh(b.mul(x[0], x[2])?)?;
                let scaled = b.mul(inner, b.spread(x[1], inner, &[1])?)?;
                Ok(vec![scaled, b.mul(x[1], x[1])?])
            })?;
            let op = MapChunks {
                body,
                chunks: 3,
                split: 2,
            };
            b.push(op, args)
        },
        |x| {
            let scaled = |i: &[usize]| (x[0].at(i) * x[2].at(&i[1..])).tanh() * x[1].at(&i[..1]);
            vec![Array::from_fn(&[6, 2], scaled), x[1].map(|x| x * x)]
        },
    )
    .refuses(
        &[f32s(&[8, 2]), f32s(&[8]), f32s(&[2])],
        "8 rows in 3 chunks",
    )
    .refuses(
        &[f32s(&[6, 2]), f32s(&[7]), f32s(&[2])],
        "7xf32 has not 6 rows",
    )
    .refuses(
        &[f32s(&[6, 2]), f32s(&[6]), f32s(&[3])],
        "the function takes (2x2xf32, 2xf32, 2xf32)",
    );
    vec![
        map_chunks,
        scan(false),
        scan(true),
        scan_block(true),
        scan_block(false).gradient(Gradient::Refused("built without saving")),
        Row::new(
            "Remat",
            "remat",
            vec![float(&[2], 0.5, 1.5), float(&[2], 0.5, 1.5)],
            |b, args| {
                let body = block(
                    f32s(&[2]).with_dtype(args[0].dtype()),
                    args[0].shape.with_dims(&[2]),
                )?;
                b.push(Remat::new(body), args)
            },
            |x| vec![x[0].zip(&x[1], block_reference)],
        )
        .refuses(
            &[f32s(&[2]), f32s(&[3])],
            "the function takes (2xf32, 2xf32)",
        ),
        // (x - mean(x))^3: recomputed from a mean that was kept.
        Row::new(
            "Remat",
            "remat that saves",
            vec![float(&[4], 0.5, 1.5)],
            |b, args| {
                let body = function(&shapes(args), |b, x| {
                    let mean = b.save(b.mean(x[0], &[0])?)?;
                    let centred = b.sub(x[0], mean)?;
                    let square = b.mul(centred, centred)?;
                    Ok(vec![b.mul(square, centred)?])
                })?;
                b.remat(body, args)
            },
            |x| {
                let mean = x[0].data.iter().sum::<f64>() / 4.0;
                vec![x[0].map(|x| (x - mean).powi(3))]
            },
        ),
        Row::new(
            "While",
            "while",
            vec![given(Some(DType::I32), &[], &[0.0]), float(&[2], 0.5, 1.5)],
            |b, args| {
                let state = [i32s(&[]), args[1].shape.with_dims(&[2])];
                let cond = function(&state, |b, x| {
                    let end = b.scalar(DType::I32, 4.0)?;
                    Ok(vec![b.compare(Comparison::Lt, x[0], end)?])
                })?;
                let body = function(&state, |b, x| {
                    let next = b.add(x[0], b.scalar(DType::I32, 1.0)?)?;
                    Ok(vec![next, b.mul(x[1], x[1])?])
                })?;
                b.push(While { cond, body }, args)
            },
            |x| vec![Array::scalar(4.0), x[1].map(|x| x.powi(16))],
        )
        .gradient(Gradient::Refused("the number of turns is not known"))
        .refuses(&[i32s(&[]), f32s(&[3])], "the condition takes (i32, 2xf32)"),
    ]
}

//! Rows of reductions and pooling.

use xla_moco::graph::ops::{
    Binary, BinaryKind, GeneralReduce, Reduce, ReduceKind, ReduceWindow, SelectAndScatter,
};
use xla_moco::graph::{Builder, DType, Value};

use crate::array::{Array, indices};
use crate::row::{FLOAT, Gradient, Operand, Row, f32s, fixed, float, given, i32s, pred};

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = ReduceKind::ALL.into_iter().map(reduce).collect();
    rows.extend(helpers());
    rows.extend(general());
    rows.extend(ReduceKind::ALL.into_iter().map(window));
    rows.extend(pools());
    rows
}

/// The start and the step of a fold.
fn fold(kind: ReduceKind) -> (f64, fn(f64, f64) -> f64) {
    match kind {
        ReduceKind::Sum => (0.0, |x, y| x + y),
        ReduceKind::Max => (f64::NEG_INFINITY, f64::max),
        ReduceKind::Min => (f64::INFINITY, f64::min),
        ReduceKind::And => (1.0, f64::min),
        ReduceKind::Or => (0.0, f64::max),
    }
}

fn operand(kind: ReduceKind, dims: &[usize]) -> Operand {
    match kind {
        ReduceKind::And | ReduceKind::Or => pred(dims),
        _ => float(dims, -1.0, 1.0),
    }
}

fn reduce(kind: ReduceKind) -> Row {
    let (start, step) = fold(kind);
    let axes = vec![0, 2];
    let op = Reduce {
        kind,
        axes: axes.clone(),
    };
    let wrong = match kind {
        ReduceKind::And | ReduceKind::Or => DType::F32,
        _ => DType::Pred,
    };
    let good = operand(kind, &[]).dtype.unwrap_or(DType::F32);
    let shape = |dims: &[usize]| f32s(dims).with_dtype(good);
    let (x, scalar) = (
        f32s(&[2, 3, 2]).with_dtype(wrong),
        f32s(&[]).with_dtype(wrong),
    );
    Row::new(
        "Reduce",
        format!("reduce {kind:?}"),
        vec![operand(kind, &[2, 3, 2])],
        move |b, args| match args {
            [x] => Ok(vec![b.reduce(kind, *x, &axes)?]),
            _ => b.push(op.clone(), args),
        },
        move |x| vec![x[0].fold(&[0, 2], start, step)],
    )
    .refuses(&[x, scalar], "is not defined for elements of type")
    .refuses(
        &[f32s(&[2, 3, 2]), f32s(&[1])],
        "must be a scalar of the same type",
    )
    .refuses(
        &[shape(&[2, 3]), shape(&[])],
        "axis 2 of a tensor of rank 2",
    )
}

fn helpers() -> Vec<Row> {
    let x = || float(&[2, 3], -1.0, 1.0);
    vec![
        Row::new(
            "Softmax",
            "softmax",
            vec![float(&[2, 3], -3.0, 3.0)],
            |b, args| Ok(vec![b.softmax(args[0])?]),
            |x| {
                let e = |i: usize, j: usize| x[0].at(&[i, j]).exp();
                let row = |i: usize| (0..3).map(|j| e(i, j)).sum::<f64>();
                vec![Array::from_fn(&[2, 3], |i| e(i[0], i[1]) / row(i[0]))]
            },
        )
        .refuses(&[f32s(&[])], "no last axis")
        .refuses(&[f32s(&[2]).with_dtype(DType::I32)], "of i32s"),
        Row::new(
            "Reduce",
            "mean",
            vec![x()],
            |b, args| Ok(vec![b.mean(args[0], &[1])?]),
            |x| vec![x[0].fold(&[1], 0.0, |s, x| s + x / 3.0)],
        )
        .refuses(&[f32s(&[2])], "axis 1 of a tensor of rank 1"),
        Row::new(
            "Reduce",
            "sum of all, spread",
            vec![x()],
            |b, args| {
                let sum = b.sum(args[0], &[1])?;
                Ok(vec![b.sum_all(args[0])?, b.spread(sum, args[0], &[1])?])
            },
            |x| {
                let row = |i: usize| (0..3).map(|j| x[0].at(&[i, j])).sum();
                vec![
                    x[0].fold(&[0, 1], 0.0, |s, x| s + x),
                    Array::from_fn(&[2, 3], |i| row(i[0])),
                ]
            },
        ),
        Row::new(
            "Reduce",
            "maximum of two equals",
            vec![given(FLOAT, &[2, 3], &[1.0, 3.0, 3.0, -1.0, -5.0, -1.0])],
            |b, args| {
                Ok(vec![
                    b.reduce_max(args[0], &[1])?,
                    b.reduce_min(args[0], &[1])?,
                ])
            },
            |x| {
                vec![
                    x[0].fold(&[1], f64::NEG_INFINITY, f64::max),
                    x[0].fold(&[1], f64::INFINITY, f64::min),
                ]
            },
        ),
        Row::new(
            "Reduce",
            "extremes of integers",
            vec![
                fixed(DType::I32, &[5], -9.0, -1.0),
                fixed(DType::U8, &[5], 200.0, 255.0),
            ],
            |b, args| {
                Ok(vec![
                    b.reduce_max(args[0], &[0])?,
                    b.reduce_min(args[1], &[0])?,
                ])
            },
            |x| {
                vec![
                    x[0].fold(&[0], f64::NEG_INFINITY, f64::max),
                    x[1].fold(&[0], f64::INFINITY, f64::min),
                ]
            },
        ),
    ]
}

fn general() -> Vec<Row> {
    let product = |b: &Builder, args: &[Value]| {
        let inner = Builder::new();
        let scalar = args.first().map_or(f32s(&[]), |x| x.shape.with_dims(&[]));
        let (x, y) = (inner.input("x", scalar), inner.input("y", scalar));
        let kind = BinaryKind::Mul;
        inner.output("z", inner.push1(Binary { kind }, &[x, y])?);
        let body = inner.finish()?;
        b.push(
            GeneralReduce {
                body,
                axes: vec![1],
            },
            args,
        )
    };
    vec![
        Row::new(
            "GeneralReduce",
            "product",
            vec![float(&[2, 3], 0.5, 2.0), given(FLOAT, &[], &[1.0])],
            product,
            |x| vec![x[0].fold(&[1], 1.0, |x, y| x * y)],
        )
        .gradient(Gradient::Refused("use sum, max or min"))
        .refuses(
            &[f32s(&[2, 3]), i32s(&[])],
            "then a scalar of each one's type",
        )
        .refuses(&[], "nothing to reduce"),
        Row::new(
            "GeneralReduce",
            "place of the largest",
            vec![float(&[3, 4], -1.0, 1.0)],
            |b, args| Ok(vec![b.argmax(args[0], 1)?, b.argmax(args[0], 0)?]),
            |x| {
                let x = &x[0];
                let first = |n: usize, at: &dyn Fn(usize) -> f64| {
                    (1..n).fold(0, |best, j| if at(j) > at(best) { j } else { best }) as f64
                };
                vec![
                    Array::from_fn(&[3], |i| first(4, &|j| x.at(&[i[0], j]))),
                    Array::from_fn(&[4], |i| first(3, &|j| x.at(&[j, i[0]]))),
                ]
            },
        )
        .refuses(&[f32s(&[3])], "axis 1 of a tensor of rank 1"),
        Row::new(
            "GeneralReduce",
            "place of the first of equals",
            vec![given(FLOAT, &[6], &[-3.0, -1.0, -2.0, -1.0, -1.0, -7.0])],
            |b, args| Ok(vec![b.argmax(args[0], 0)?]),
            |_| vec![Array::scalar(1.0)],
        ),
    ]
}

/// Folds each window, one element at a time.
fn slide(
    x: &Array,
    kind: ReduceKind,
    window: &[usize],
    strides: &[usize],
    padding: &[(usize, usize)],
) -> Array {
    let (start, step) = fold(kind);
    let dims: Vec<usize> = (0..window.len())
        .map(|i| (x.dims[i] + padding[i].0 + padding[i].1 - window[i]) / strides[i] + 1)
        .collect();
    Array::from_fn(&dims, |y| {
        indices(window)
            .map(|tap| {
                let at: Vec<i64> = (0..tap.len())
                    .map(|i| (y[i] * strides[i] + tap[i]) as i64 - padding[i].0 as i64)
                    .collect();
                x.at_or(&at, start)
            })
            .fold(start, step)
    })
}

fn window(kind: ReduceKind) -> Row {
    let op = ReduceWindow {
        kind,
        window: vec![1, 3, 2, 1],
        strides: vec![1, 2, 1, 1],
        padding: vec![(0, 0), (1, 1), (0, 1), (0, 0)],
    };
    let wrong = match kind {
        ReduceKind::And | ReduceKind::Or => DType::F32,
        _ => DType::Pred,
    };
    let good = operand(kind, &[]).dtype.unwrap_or(DType::F32);
    let shape = |dtype: DType, dims: &[usize]| f32s(dims).with_dtype(dtype);
    Row::new(
        "ReduceWindow",
        format!("windows {kind:?}"),
        vec![operand(kind, &[2, 4, 3, 1])],
        move |b, args| match args {
            [x] => Ok(vec![b.reduce_window(
                kind,
                *x,
                &op.window,
                &op.strides,
                &op.padding,
            )?]),
            _ => b.push(op.clone(), args),
        },
        move |x| {
            let padding = [(0, 0), (1, 1), (0, 1), (0, 0)];
            vec![slide(&x[0], kind, &[1, 3, 2, 1], &[1, 2, 1, 1], &padding)]
        },
    )
    .refuses(
        &[shape(wrong, &[2, 4, 3, 1]), shape(wrong, &[])],
        "is not defined for elements of type",
    )
    .refuses(
        &[shape(good, &[2, 0, 3, 1]), shape(good, &[])],
        "a window of 3 with stride 2 on axis 1, which has length 2 with its padding",
    )
    .refuses(
        &[shape(good, &[2, 4]), shape(good, &[])],
        "windows of 4 axes for a tensor of rank 2",
    )
}

fn pools() -> Vec<Row> {
    // As ResNet's stem: windows of 3 with stride 2, padded by 1.
    let (window, strides, padding) = ([1, 3, 3, 1], [1, 2, 2, 1], [(0, 0), (1, 1), (1, 1), (0, 0)]);
    vec![
        Row::new(
            "ReduceWindow",
            "max pooling",
            vec![float(&[1, 4, 4, 2], -1.0, 1.0)],
            move |b, args| Ok(vec![b.max_pool(args[0], &window, &strides, &padding)?]),
            move |x| vec![slide(&x[0], ReduceKind::Max, &window, &strides, &padding)],
        ),
        Row::new(
            "ReduceWindow",
            "average pooling",
            vec![float(&[1, 4, 4, 2], -1.0, 1.0)],
            move |b, args| Ok(vec![b.average_pool(args[0], &window, &strides, &padding)?]),
            move |x| {
                let slide = |x: &Array| slide(x, ReduceKind::Sum, &window, &strides, &padding);
                let counts = slide(&x[0].map(|_| 1.0));
                vec![slide(&x[0]).zip(&counts, |sum, count| sum / count)]
            },
        ),
        Row::new(
            "SelectAndScatter",
            "places of the largest",
            vec![
                given(FLOAT, &[5, 1, 1], &[1.0, 3.0, 2.0, 2.0, 0.0]),
                given(FLOAT, &[2, 1, 1], &[10.0, 20.0]),
                given(FLOAT, &[], &[0.5]),
            ],
            |b, args| {
                let op = SelectAndScatter {
                    kind: ReduceKind::Max,
                    window: vec![3, 1, 1],
                    strides: vec![2, 1, 1],
                };
                b.push(op, args)
            },
            |_| vec![Array::new(&[5, 1, 1], vec![0.5, 10.5, 20.5, 0.5, 0.5])],
        )
        .gradient(Gradient::Refused(
            "it is itself the derivative of a pooling",
        ))
        .refuses(
            &[f32s(&[5, 1, 1]), f32s(&[3, 1, 1]), f32s(&[])],
            "the windows take values of 2x1x1xf32",
        )
        .refuses(
            &[f32s(&[5, 1, 1]), f32s(&[2, 1, 1]), i32s(&[])],
            "must be a scalar of the same type",
        ),
    ]
}

//! Rows of ops that make or move elements and compute nothing.

use xla_moco::graph::ops::{
    BroadcastInDim, Concatenate, Constant, DynamicSlice, DynamicUpdateSlice, Iota, Literal, Pad,
    Reshape, Reverse, Slice, Transpose,
};
use xla_moco::graph::{DType, Shape};

use crate::array::Array;
use crate::row::{Operand, Row, f32s, float, given, i32s};

pub fn rows() -> Vec<Row> {
    let mut rows = makers();
    rows.extend(reshapes());
    rows.extend(broadcasts());
    rows.extend(slices());
    rows.extend(pads());
    rows.extend(joins());
    rows.extend(dynamic());
    rows
}

fn makers() -> Vec<Row> {
    let elements = vec![0.1, -3e-3, 7e20, f64::INFINITY, -1.0, 0.0];
    let expected = Array::new(&[2, 3], elements.clone()).map(|x| f64::from(x as f32));
    let mut splat = Row::new(
        "Constant",
        "splat",
        vec![],
        |_, _| Ok(vec![]),
        |_| vec![Array::full(&[2, 2], -0.3)],
    );
    splat.build = Box::new(|b, float, _| Ok(vec![b.full(Shape::new(float, &[2, 2]), -0.3)?]));
    let table = Row::new(
        "Constant",
        "table",
        vec![],
        move |b, _| Ok(vec![b.table(f32s(&[2, 3]), elements.clone())?]),
        move |_| vec![expected.clone()],
    );
    let short = Row::new(
        "Constant",
        "integers and predicates",
        vec![],
        |b, _| {
            Ok(vec![
                b.scalar(DType::I32, f64::NEG_INFINITY)?,
                b.scalar(DType::U8, f64::INFINITY)?,
                b.scalar(DType::Pred, 1.0)?,
                b.table(Shape::new(DType::U32, &[2]), vec![0.0, 4294967295.0])?,
            ])
        },
        |_| {
            vec![
                Array::scalar(f64::from(i32::MIN)),
                Array::scalar(255.0),
                Array::scalar(1.0),
                Array::new(&[2], vec![0.0, 4294967295.0]),
            ]
        },
    );
    vec![
        splat,
        table,
        short,
        Row::new(
            "Constant",
            "constant takes no operand",
            vec![],
            |b, args| {
                let literal = Literal::Elements(vec![1.0, 2.0]);
                let shape = i32s(&[2]);
                b.push(Constant { shape, literal }, args)
            },
            |_| vec![Array::new(&[2], vec![1.0, 2.0])],
        )
        .refuses(&[f32s(&[])], "expected 0 operands, found 1"),
        Row::new(
            "Iota",
            "iota",
            vec![],
            |b, args| {
                b.push(
                    Iota {
                        shape: i32s(&[2, 3]),
                        axis: 1,
                    },
                    args,
                )
            },
            |_| vec![Array::from_fn(&[2, 3], |i| i[1] as f64)],
        )
        .refuses(&[f32s(&[])], "expected 0 operands, found 1"),
    ]
}

fn reshapes() -> Vec<Row> {
    vec![
        Row::new(
            "Reshape",
            "reshape",
            vec![float(&[2, 3, 2], -1.0, 1.0)],
            |b, args| {
                let shape = args[0].shape.with_dims(&[4, 3]);
                b.push(Reshape { shape }, args)
            },
            |x| vec![x[0].reshape(&[4, 3])],
        )
        .refuses(&[f32s(&[5])], "5 elements do not make 4x3xf32"),
        Row::new(
            "Transpose",
            "transpose",
            vec![float(&[2, 3, 4], -1.0, 1.0)],
            |b, args| {
                let permutation = vec![2, 0, 1];
                b.push(Transpose { permutation }, args)
            },
            |x| vec![x[0].transpose(&[2, 0, 1])],
        )
        .refuses(&[f32s(&[2, 3])], "a permutation of 3 axes"),
        Row::new(
            "Reverse",
            "reverse",
            vec![float(&[2, 3, 2], -1.0, 1.0)],
            |b, args| b.push(Reverse { axes: vec![1, 2] }, args),
            |x| {
                vec![Array::from_fn(&[2, 3, 2], |i| {
                    x[0].at(&[i[0], 2 - i[1], 1 - i[2]])
                })]
            },
        )
        .refuses(&[f32s(&[4, 2])], "axis 2 of a tensor of rank 2"),
    ]
}

fn broadcasts() -> Vec<Row> {
    let row = |name: &str, from: &[usize], dims: &[usize], axes: &[usize]| {
        let op = BroadcastInDim {
            dims: dims.to_vec(),
            axes: axes.to_vec(),
        };
        let (dims, axes) = (dims.to_vec(), axes.to_vec());
        Row::new(
            "BroadcastInDim",
            name,
            vec![float(from, -1.0, 1.0)],
            move |b, args| b.push(op.clone(), args),
            move |x| {
                vec![Array::from_fn(&dims, |i| {
                    let own: Vec<usize> = axes
                        .iter()
                        .zip(&x[0].dims)
                        .map(|(axis, size)| if *size == 1 { 0 } else { i[*axis] })
                        .collect();
                    x[0].at(&own)
                })]
            },
        )
    };
    vec![
        row("broadcast new axes", &[3], &[2, 3, 2], &[1])
            .refuses(&[f32s(&[2])], "size 2 cannot be repeated to 3")
            .refuses(&[f32s(&[1, 3])], "1 axes for a tensor of rank 2"),
        row("broadcast size 1", &[2, 1], &[2, 3], &[0, 1]),
        row("broadcast a scalar", &[], &[2, 2], &[]),
        row(
            "broadcast with axes out of order",
            &[2, 3],
            &[3, 2, 2],
            &[1, 0],
        ),
    ]
}

fn slices() -> Vec<Row> {
    vec![
        Row::new(
            "Slice",
            "slice",
            vec![float(&[7, 4], -1.0, 1.0)],
            |b, args| {
                let op = Slice {
                    start: vec![1, 2],
                    limit: vec![6, 4],
                    stride: vec![3, 1],
                };
                b.push(op, args)
            },
            |x| {
                vec![Array::from_fn(&[2, 2], |i| {
                    x[0].at(&[1 + 3 * i[0], 2 + i[1]])
                })]
            },
        )
        .refuses(&[f32s(&[5, 4])], "1..6 step 3 of axis 0, which has 5")
        .refuses(
            &[f32s(&[7])],
            "bounds must have one entry for each of 1 axes",
        ),
        Row::new(
            "Slice",
            "slice of one axis",
            vec![float(&[2, 4], -1.0, 1.0)],
            |b, args| Ok(vec![b.slice_axis(args[0], 1, 1, 3)?]),
            |x| vec![x[0].block(&[0, 1], &[2, 2])],
        ),
    ]
}

fn pads() -> Vec<Row> {
    let row = |name: &str, dims: &[usize], edges: Vec<(i64, i64, usize)>| {
        let op = Pad {
            edges: edges.clone(),
        };
        Row::new(
            "Pad",
            name,
            vec![float(dims, -1.0, 1.0), float(&[], 2.0, 3.0)],
            move |b, args| b.push(op.clone(), args),
            move |x| {
                let dims: Vec<usize> = x[0]
                    .dims
                    .iter()
                    .zip(&edges)
                    .map(|(n, (low, high, inner))| {
                        ((n + (n - 1) * inner) as i64 + low + high) as usize
                    })
                    .collect();
                vec![Array::from_fn(&dims, |i| {
                    let own: Option<Vec<i64>> = i
                        .iter()
                        .zip(&edges)
                        .map(|(place, (low, _, inner))| {
                            let at = *place as i64 - low;
                            let step = *inner as i64 + 1;
                            (at.rem_euclid(step) == 0).then(|| at.div_euclid(step))
                        })
                        .collect();
                    own.map_or(x[1].data[0], |own| x[0].at_or(&own, x[1].data[0]))
                })]
            },
        )
    };
    vec![
        row("pad around", &[2, 3], vec![(1, 0, 0), (2, 1, 0)])
            .refuses(
                &[f32s(&[2, 3]), f32s(&[1])],
                "must be a scalar of the same type",
            )
            .refuses(&[f32s(&[2]), f32s(&[])], "edges for 2 axes"),
        row("pad between", &[3, 2], vec![(1, 2, 1), (0, 0, 2)]),
        row("pad that crops", &[5, 3], vec![(-1, -2, 0), (1, -1, 1)])
            .refuses(&[f32s(&[2, 3]), f32s(&[])], "an axis of size -1"),
    ]
}

fn joins() -> Vec<Row> {
    let between = |dims: &[usize]| float(dims, -1.0, 1.0);
    vec![
        Row::new(
            "Concatenate",
            "concatenate",
            vec![between(&[2, 1]), between(&[2, 3]), between(&[2, 2])],
            |b, args| b.push(Concatenate { axis: 1 }, args),
            |x| {
                vec![Array::from_fn(&[2, 6], |i| match i[1] {
                    0 => x[0].at(&[i[0], 0]),
                    j @ 1..4 => x[1].at(&[i[0], j - 1]),
                    j => x[2].at(&[i[0], j - 4]),
                })]
            },
        )
        .refuses(
            &[f32s(&[2, 1]), f32s(&[3, 1])],
            "3x1xf32 does not fit 2x1xf32 along axis 1",
        )
        .refuses(
            &[f32s(&[2, 1]), i32s(&[2, 1])],
            "2x1xi32 does not fit 2x1xf32 along axis 1",
        )
        .refuses(&[], "nothing to concatenate"),
        Row::new(
            "Concatenate",
            "stack",
            vec![between(&[3]), between(&[3])],
            |b, args| Ok(vec![b.stack(args)?]),
            |x| vec![Array::from_fn(&[2, 3], |i| x[i[0]].at(&[i[1]]))],
        ),
    ]
}

fn dynamic() -> Vec<Row> {
    let start = |value: f64| given(Some(DType::I32), &[], &[value]);
    // The block is held inside: the second start is moved from 9 to 2.
    let starts = || -> Vec<Operand> { vec![start(1.0), start(9.0)] };
    let index = Shape::scalar(DType::I32);
    vec![
        Row::new(
            "DynamicSlice",
            "dynamic slice",
            [vec![float(&[4, 5], -1.0, 1.0)], starts()].concat(),
            |b, args| b.push(DynamicSlice { sizes: vec![2, 3] }, args),
            |x| vec![x[0].block(&[1, 2], &[2, 3])],
        )
        .refuses(&[f32s(&[4, 5]), index], "1 start indices for 2 axes")
        .refuses(&[f32s(&[4, 2]), index, index], "a block of [2, 3]")
        .refuses(
            &[f32s(&[4, 5]), f32s(&[]), f32s(&[])],
            "integer scalars of one type",
        ),
        Row::new(
            "DynamicSlice",
            "row",
            vec![float(&[3, 2], -1.0, 1.0), start(2.0)],
            |b, args| Ok(vec![b.row(args[0], 0, args[1])?]),
            |x| vec![Array::from_fn(&[2], |i| x[0].at(&[2, i[0]]))],
        )
        .refuses(&[f32s(&[]), index], "there is no axis 0"),
        Row::new(
            "DynamicSlice",
            "row along axis 1",
            vec![float(&[2, 3, 2], -1.0, 1.0), start(2.0)],
            |b, args| Ok(vec![b.row(args[0], 1, args[1])?]),
            |x| vec![Array::from_fn(&[2, 2], |i| x[0].at(&[i[0], 2, i[1]]))],
        ),
        Row::new(
            "DynamicUpdateSlice",
            "dynamic update slice",
            [
                vec![float(&[4, 5], -1.0, 1.0), float(&[2, 3], -1.0, 1.0)],
                starts(),
            ]
            .concat(),
            |b, args| b.push(DynamicUpdateSlice, args),
            |x| {
                let mut out = x[0].clone();
                for i in 0..2 {
                    for j in 0..3 {
                        *out.at_mut(&[1 + i, 2 + j]) = x[1].at(&[i, j]);
                    }
                }
                vec![out]
            },
        )
        .refuses(
            &[f32s(&[4, 5]), f32s(&[5, 1]), index, index],
            "does not fit inside",
        )
        .refuses(
            &[f32s(&[4, 5]), i32s(&[1, 1]), index, index],
            "does not fit inside",
        ),
    ]
}

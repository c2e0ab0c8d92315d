//! Rows of indexing and ordering.

use xla_moco::graph::DType;
use xla_moco::graph::ops::{Gather, IndexDims, Scatter, ScatterKind, Sort, TopK};

use crate::array::{Array, indices};
use crate::row::{FLOAT, Gradient, Operand, Row, f32s, fixed, float, given, i32s};

pub fn rows() -> Vec<Row> {
    let mut rows = gathers();
    rows.extend(scatters());
    rows.extend(sorts());
    rows.extend(top_k());
    rows
}

/// Places of type i32.
fn places(dims: &[usize], values: &[f64]) -> Operand {
    given(Some(DType::I32), dims, values)
}

/// Slices of `[1, 2, 3]` from a tensor of `[3, 4, 3]`, with index vectors
/// (axis 1, axis 0) along the first axis of the index tensor.
fn corner() -> IndexDims {
    IndexDims {
        window: vec![0, 2],
        collapsed: vec![0],
        index_map: vec![1, 0],
        index_axis: 0,
        ..IndexDims::default()
    }
}

/// Starts that lie inside, touch the edge, and reach outside on both sides.
fn corners() -> Operand {
    places(&[2, 4], &[0.0, 2.0, 3.0, -1.0, 0.0, 2.0, 1.0, 9.0])
}

/// Where slice `n` starts, held inside.
fn held(index: &Array, n: usize) -> [usize; 2] {
    let hold = |value: f64, last: f64| value.clamp(0.0, last) as usize;
    [hold(index.at(&[1, n]), 2.0), hold(index.at(&[0, n]), 2.0)]
}

/// Whether slice `n` lies inside.
fn inside(index: &Array, n: usize) -> bool {
    (0..2).all(|c| (0.0..=2.0).contains(&index.at(&[c, n])))
}

fn gathers() -> Vec<Row> {
    vec![
        Row::new(
            "Gather",
            "gather slices",
            vec![float(&[3, 4, 3], -1.0, 1.0), corners()],
            |b, args| {
                let sizes = vec![1, 2, 3];
                b.push(
                    Gather {
                        dims: corner(),
                        sizes,
                    },
                    args,
                )
            },
            |x| {
                vec![Array::from_fn(&[2, 4, 3], |i| {
                    let [row, column] = held(&x[1], i[1]);
                    x[0].at(&[row, column + i[0], i[2]])
                })]
            },
        )
        .refuses(&[f32s(&[3, 4, 3]), f32s(&[2, 4])], "indices of type f32")
        .refuses(
            &[f32s(&[3, 4, 3]), i32s(&[3, 4])],
            "index vectors of 3 components for the axes [1, 0]",
        )
        .refuses(
            &[f32s(&[3, 1, 3]), i32s(&[2, 4])],
            "slices of [1, 2, 3] of 3x1x3xf32",
        ),
        Row::new(
            "Gather",
            "rows",
            vec![
                float(&[3, 2], -1.0, 1.0),
                places(&[2, 2], &[2.0, 0.0, 2.0, 5.0]),
            ],
            |b, args| Ok(vec![b.take_rows(args[0], args[1])?]),
            |x| {
                vec![Array::from_fn(&[2, 2, 2], |i| {
                    let row = (x[1].at(&i[..2]) as usize).min(2);
                    x[0].at(&[row, i[2]])
                })]
            },
        )
        .refuses(&[f32s(&[]), i32s(&[2])], "a scalar has no rows"),
        Row::new(
            "Gather",
            "along the last axis",
            vec![
                float(&[2, 2, 3], -1.0, 1.0),
                places(&[2, 2, 2], &[0.0, 2.0, 1.0, 1.0, 2.0, 0.0, 1.0, 2.0]),
            ],
            |b, args| Ok(vec![b.take_along_last(args[0], args[1])?]),
            |x| {
                vec![Array::from_fn(&[2, 2, 2], |i| {
                    x[0].at(&[i[0], i[1], x[1].at(i) as usize])
                })]
            },
        )
        .refuses(&[f32s(&[2, 3]), i32s(&[2])], "both must have the same axes")
        .refuses(&[f32s(&[2, 3]), i32s(&[3, 2])], "do not run along"),
    ]
}

fn scatters() -> Vec<Row> {
    let slices = |kind: ScatterKind, unique: bool, index: Operand, n: usize| {
        Row::new(
            "Scatter",
            format!("scatter {kind:?} unique {unique}"),
            vec![
                float(&[3, 4, 3], -1.0, 1.0),
                index,
                float(&[2, n, 3], -1.0, 1.0),
            ],
            move |b, args| {
                let op = Scatter {
                    kind,
                    dims: corner(),
                    unique,
                };
                b.push(op, args)
            },
            move |x| {
                let mut out = x[0].clone();
                for i in indices(&[2, n, 3]) {
                    let [row, column] = held(&x[1], i[1]);
                    let place = [row, column + i[0], i[2]];
                    match kind {
                        _ if !inside(&x[1], i[1]) => {}
                        ScatterKind::Add => *out.at_mut(&place) += x[2].at(&i),
                        ScatterKind::Replace => *out.at_mut(&place) = x[2].at(&i),
                    }
                }
                vec![out]
            },
        )
    };
    // Slices that overlap only themselves; one lies outside.
    let apart = || places(&[2, 3], &[0.0, 2.0, 3.0, 0.0, 2.0, 1.0]);
    vec![
        slices(ScatterKind::Add, false, corners(), 4)
            .refuses(
                &[f32s(&[3, 4, 3]), i32s(&[2, 4]), f32s(&[2, 5, 3])],
                "the indices name slices of 2x4x3xf32",
            )
            .refuses(
                &[f32s(&[3, 4, 3]), i32s(&[2, 4]), f32s(&[2, 4])],
                "window axes [0, 2] of 2x4xf32",
            )
            .refuses(
                &[f32s(&[3, 4, 3]), f32s(&[2, 4]), f32s(&[2, 4, 3])],
                "indices of type f32",
            ),
        slices(ScatterKind::Replace, true, apart(), 3),
        slices(ScatterKind::Replace, false, apart(), 3)
            .gradient(Gradient::Refused("promise unique indices")),
        Row::new(
            "Scatter",
            "histogram",
            vec![
                given(FLOAT, &[4], &[0.0; 4]),
                places(&[6], &[1.0, 3.0, 1.0, 0.0, 1.0, 3.0]),
                given(FLOAT, &[6], &[1.0; 6]),
            ],
            |b, args| {
                let op = Scatter {
                    kind: ScatterKind::Add,
                    dims: IndexDims::rows(1, 1),
                    unique: false,
                };
                Ok(vec![b.scatter(op, args[0], args[1], args[2])?])
            },
            |_| vec![Array::new(&[4], vec![1.0, 3.0, 0.0, 2.0])],
        ),
    ]
}

/// The order that sorts `keys`, equal ones as they stand.
fn order(keys: &[f64], descending: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|i, j| {
        let order = keys[*i].total_cmp(&keys[*j]);
        if descending { order.reverse() } else { order }
    });
    order
}

fn sorts() -> Vec<Row> {
    vec![
        Row::new(
            "Sort",
            "sort",
            vec![float(&[2, 5], -1.0, 1.0)],
            |b, args| {
                b.push(
                    Sort {
                        axis: 1,
                        descending: false,
                    },
                    args,
                )
            },
            |x| {
                vec![Array::from_fn(&[2, 5], |i| {
                    let row = &x[0].data[5 * i[0]..5 * i[0] + 5];
                    row[order(row, false)[i[1]]]
                })]
            },
        )
        .refuses(&[f32s(&[5])], "axis 1 of a tensor of rank 1")
        .refuses(
            &[f32s(&[2, 5]), f32s(&[2, 4])],
            "all must have the dimensions of the first",
        )
        .refuses(&[], "nothing to sort"),
        Row::new(
            "Sort",
            "sort others along, equals in place",
            vec![
                given(Some(DType::F32), &[5], &[2.0, -1.0, 2.0, 7.0, 2.0]),
                float(&[5], -1.0, 1.0),
                fixed(DType::I32, &[5], 0.0, 99.0),
            ],
            |b, args| b.sort(args, 0, true),
            |x| {
                let order = order(&x[0].data, true);
                x.iter()
                    .map(|x| Array::from_fn(&[5], |i| x.data[order[i[0]]]))
                    .collect()
            },
        ),
        Row::new(
            "Sort",
            "gradient of what is sorted along",
            vec![float(&[3, 2], -1.0, 1.0), float(&[3, 2], -1.0, 1.0)],
            |b, args| b.sort(args, 0, true),
            |x| {
                let column = |j: usize| [x[0].at(&[0, j]), x[0].at(&[1, j]), x[0].at(&[2, j])];
                x.iter()
                    .map(|x| {
                        Array::from_fn(&[3, 2], |i| x.at(&[order(&column(i[1]), true)[i[0]], i[1]]))
                    })
                    .collect()
            },
        ),
        Row::new(
            "Sort",
            "places that sort, NaN last",
            vec![given(
                Some(DType::F32),
                &[5],
                &[2.0, f64::NAN, -0.0, 0.0, -3.0],
            )],
            |b, args| Ok(vec![b.argsort(args[0], 0, false)?]),
            |_| vec![Array::new(&[5], vec![4.0, 2.0, 3.0, 0.0, 1.0])],
        ),
    ]
}

fn top_k() -> Vec<Row> {
    vec![
        Row::new(
            "TopK",
            "largest three",
            vec![float(&[2, 6], -1.0, 1.0)],
            |b, args| b.push(TopK { k: 3 }, args),
            |x| {
                let row = |i: usize| &x[0].data[6 * i..6 * i + 6];
                let place = |i: &[usize]| order(row(i[0]), true)[i[1]];
                vec![
                    Array::from_fn(&[2, 3], |i| row(i[0])[place(i)]),
                    Array::from_fn(&[2, 3], |i| place(i) as f64),
                ]
            },
        )
        .refuses(&[f32s(&[2])], "3 largest of 2")
        .refuses(&[f32s(&[])], "a scalar has no largest elements"),
        Row::new(
            "TopK",
            "largest of equals",
            vec![given(Some(DType::F32), &[5], &[1.0, 4.0, 4.0, 0.0, 4.0])],
            |b, args| Ok(b.top_k(args[0], 2)?.to_vec()),
            |_| {
                vec![
                    Array::new(&[2], vec![4.0, 4.0]),
                    Array::new(&[2], vec![1.0, 2.0]),
                ]
            },
        ),
    ]
}

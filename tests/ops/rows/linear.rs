//! Rows of matrix products and convolutions.

use xla_moco::graph::DType;
use xla_moco::graph::ops::{ConvDims, Convolution, DotGeneral};

use crate::array::{Array, indices};
use crate::row::{Row, f32s, fixed, float, i32s};

pub fn rows() -> Vec<Row> {
    let mut rows = dots();
    rows.extend(convolutions());
    rows
}

/// Sums products over the contracting axes, one element at a time.
fn dot(x: &Array, y: &Array, op: &DotGeneral) -> Array {
    let free = |a: &Array, batch: &[usize], contract: &[usize]| -> Vec<usize> {
        (0..a.dims.len())
            .filter(|i| !batch.contains(i) && !contract.contains(i))
            .collect()
    };
    let x_free = free(x, &op.lhs_batch, &op.lhs_contract);
    let y_free = free(y, &op.rhs_batch, &op.rhs_contract);
    let sizes = |a: &Array, axes: &[usize]| axes.iter().map(|i| a.dims[*i]).collect::<Vec<_>>();
    let dims = [
        sizes(x, &op.lhs_batch),
        sizes(x, &x_free),
        sizes(y, &y_free),
    ]
    .concat();
    let inner = sizes(x, &op.lhs_contract);
    Array::from_fn(&dims, |out| {
        let (batch, rest) = out.split_at(op.lhs_batch.len());
        let (left, right) = rest.split_at(x_free.len());
        let place = |rank: usize, parts: [(&[usize], &[usize]); 3]| {
            let mut index = vec![0; rank];
            for (axes, values) in parts {
                for (axis, value) in axes.iter().zip(values) {
                    index[*axis] = *value;
                }
            }
            index
        };
        indices(&inner)
            .map(|k| {
                let i = [
                    (&op.lhs_batch[..], batch),
                    (&x_free, left),
                    (&op.lhs_contract, &k),
                ];
                let j = [
                    (&op.rhs_batch[..], batch),
                    (&y_free, right),
                    (&op.rhs_contract, &k),
                ];
                x.at(&place(x.dims.len(), i)) * y.at(&place(y.dims.len(), j))
            })
            .sum()
    })
}

fn dots() -> Vec<Row> {
    let row = |name: &str,
               x: &[usize],
               y: &[usize],
               batch: (&[usize], &[usize]),
               contract: (&[usize], &[usize])| {
        let op = DotGeneral {
            lhs_batch: batch.0.to_vec(),
            rhs_batch: batch.1.to_vec(),
            lhs_contract: contract.0.to_vec(),
            rhs_contract: contract.1.to_vec(),
            out: DType::F64,
        };
        let reference = op.clone();
        Row::new(
            "DotGeneral",
            name,
            vec![float(x, -1.0, 1.0), float(y, -1.0, 1.0)],
            move |b, args| {
                let (lhs, rhs) = (&op.lhs_batch[..], &op.rhs_batch[..]);
                let contract = (&op.lhs_contract[..], &op.rhs_contract[..]);
                Ok(vec![b.dot_general(
                    args[0],
                    args[1],
                    (lhs, rhs),
                    contract,
                )?])
            },
            move |x| vec![dot(&x[0], &x[1], &reference)],
        )
    };
    vec![
        row("matrix product", &[2, 3], &[3, 4], (&[], &[]), (&[1], &[0]))
            .refuses(
                &[f32s(&[2, 3]), f32s(&[4, 3])],
                "contracting axes 1 and 0 have sizes 3 and 4",
            )
            .refuses(
                &[f32s(&[2, 3]), i32s(&[3, 2])],
                "element types f32 and i32 differ",
            )
            .refuses(
                &[f32s(&[2]), f32s(&[2])],
                "contracting 1 of a tensor of rank 1",
            ),
        row("inner product", &[3], &[3], (&[], &[]), (&[0], &[0])),
        row("outer product", &[2], &[3], (&[], &[]), (&[], &[])),
        row(
            "linear layer",
            &[2, 2, 3],
            &[4, 3],
            (&[], &[]),
            (&[2], &[1]),
        ),
        row(
            "attention scores",
            &[2, 2, 3],
            &[2, 4, 3],
            (&[0], &[0]),
            (&[2], &[2]),
        ),
        row(
            "inner batch axes",
            &[2, 3, 2, 2],
            &[2, 2, 3, 4],
            (&[0, 2], &[0, 1]),
            (&[1], &[2]),
        )
        .refuses(
            &[f32s(&[2, 3, 2, 2]), f32s(&[2, 3, 3, 4])],
            "batch axes 2 and 1 have sizes 2 and 3",
        ),
        row(
            "axes paired out of order",
            &[2, 3, 4],
            &[4, 5, 2],
            (&[], &[]),
            (&[2, 0], &[0, 2]),
        ),
        Row::new(
            "DotGeneral",
            "bf16 summed in f32",
            vec![
                fixed(DType::BF16, &[2, 8], -1.0, 1.0),
                fixed(DType::BF16, &[8, 3], -1.0, 1.0),
            ],
            |b, args| {
                let op = DotGeneral {
                    lhs_batch: vec![],
                    rhs_batch: vec![],
                    lhs_contract: vec![1],
                    rhs_contract: vec![0],
                    out: DType::F32,
                };
                b.push(op, args)
            },
            |x| {
                vec![Array::from_fn(&[2, 3], |i| {
                    (0..8)
                        .map(|k| x[0].at(&[i[0], k]) * x[1].at(&[k, i[1]]))
                        .sum()
                })]
            },
        ),
    ]
}

/// Sums products over taps and features, one element at a time.
fn convolve(x: &Array, w: &Array, op: &Convolution) -> Array {
    let (xd, wd, yd) = (&op.dims.input, &op.dims.filter, &op.dims.output);
    let n = op.strides.len();
    let spread = |size: usize, distance: usize| ((size - 1) * distance + 1) as i64;
    let mut dims = vec![0; n + 2];
    dims[yd[0]] = x.dims[xd[0]] / op.batch_groups;
    dims[yd[1]] = w.dims[wd[0]];
    for i in 0..n {
        let input = spread(x.dims[xd[2 + i]], op.input_dilation[i]);
        let filter = spread(w.dims[wd[2 + i]], op.filter_dilation[i]);
        let (low, high) = op.padding[i];
        dims[yd[2 + i]] = ((input + low + high - filter) / op.strides[i] as i64 + 1) as usize;
    }
    let taps: Vec<usize> = (0..n).map(|i| w.dims[wd[2 + i]]).collect();
    let (filters, depth) = (w.dims[wd[0]], w.dims[wd[1]]);
    Array::from_fn(&dims, |y| {
        let filter = y[yd[1]];
        let group = |groups: usize| filter / (filters / groups);
        let sample = y[yd[0]] + group(op.batch_groups) * x.dims[xd[0]] / op.batch_groups;
        let first = group(op.feature_groups) * depth;
        let mut sum = 0.0;
        for tap in indices(&taps) {
            let mut at = vec![0; n + 2];
            at[xd[0]] = sample as i64;
            let mut between = false;
            for i in 0..n {
                let place = (y[yd[2 + i]] * op.strides[i] + tap[i] * op.filter_dilation[i]) as i64
                    - op.padding[i].0;
                let distance = op.input_dilation[i] as i64;
                between |= place.rem_euclid(distance) != 0;
                at[xd[2 + i]] = place.div_euclid(distance);
            }
            if between {
                continue;
            }
            for feature in 0..depth {
                at[xd[1]] = (first + feature) as i64;
                let mut weight = vec![0; n + 2];
                (weight[wd[0]], weight[wd[1]]) = (filter, feature);
                for i in 0..n {
                    weight[wd[2 + i]] = tap[i];
                }
                sum += x.at_or(&at, 0.0) * w.at(&weight);
            }
        }
        sum
    })
}

fn convolutions() -> Vec<Row> {
    let row = |name: &str, x: &[usize], w: &[usize], op: Convolution| {
        let reference = op.clone();
        Row::new(
            "Convolution",
            name,
            vec![float(x, -1.0, 1.0), float(w, -1.0, 1.0)],
            move |b, args| Ok(vec![b.convolution(op.clone(), args[0], args[1])?]),
            move |x| vec![convolve(&x[0], &x[1], &reference)],
        )
    };
    let plain = Convolution::new;
    let one_axis = ConvDims {
        input: vec![1, 2, 0],
        filter: vec![0, 2, 1],
        output: vec![2, 0, 1],
    };
    vec![
        row(
            "convolution",
            &[2, 4, 3, 2],
            &[3, 2, 2, 2],
            plain(ConvDims::nhwc()),
        )
        .refuses(
            &[f32s(&[2, 4, 3, 2]), f32s(&[3, 2, 3, 2])],
            "2 input features in 1 groups for filters that take 3",
        )
        .refuses(
            &[f32s(&[2, 2, 3, 2]), f32s(&[3, 2, 2, 2])],
            "a filter of length 3 on spatial axis 0, which has length 2",
        )
        .refuses(
            &[f32s(&[2, 3, 2]), f32s(&[3, 2, 2, 2])],
            "input axis numbers",
        )
        .refuses(
            &[f32s(&[2, 4, 3, 2]), i32s(&[3, 2, 2, 2])],
            "element types f32 and i32 differ",
        ),
        row(
            "convolution with strides and padding",
            &[1, 2, 5, 4],
            &[2, 2, 3, 2],
            Convolution {
                strides: vec![2, 3],
                padding: vec![(1, 2), (0, 3)],
                ..plain(ConvDims::nchw())
            },
        ),
        row(
            "convolution with dilations",
            &[1, 1, 4, 3],
            &[2, 1, 2, 2],
            Convolution {
                strides: vec![1, 2],
                padding: vec![(2, -1), (1, 1)],
                input_dilation: vec![2, 3],
                filter_dilation: vec![3, 2],
                ..plain(ConvDims::nchw())
            },
        ),
        row(
            "convolution in feature groups",
            &[2, 3, 3, 4],
            &[2, 2, 2, 6],
            Convolution {
                padding: vec![(1, 0), (0, 1)],
                feature_groups: 2,
                ..plain(ConvDims::nhwc())
            },
        )
        .refuses(
            &[f32s(&[2, 3, 3, 4]), f32s(&[2, 2, 2, 5])],
            "5 filters and 2 samples do not divide into 2 feature and 1 batch groups",
        ),
        row(
            "depthwise convolution",
            &[1, 4, 3, 2],
            &[3, 2, 1, 2],
            Convolution {
                strides: vec![1, 2],
                padding: vec![(1, 1), (0, 0)],
                feature_groups: 2,
                ..plain(ConvDims::nhwc())
            },
        ),
        row(
            "convolution in batch groups",
            &[4, 1, 3, 2],
            &[4, 1, 2, 2],
            Convolution {
                strides: vec![2, 1],
                padding: vec![(0, 0), (1, 0)],
                batch_groups: 2,
                ..plain(ConvDims::nchw())
            },
        )
        .refuses(
            &[f32s(&[3, 1, 3, 2]), f32s(&[4, 1, 2, 2])],
            "4 filters and 3 samples do not divide into 1 feature and 2 batch groups",
        ),
        row(
            "convolution of one axis",
            &[5, 2, 3],
            &[2, 3, 3],
            Convolution {
                strides: vec![2],
                padding: vec![(1, 1)],
                ..plain(one_axis)
            },
        ),
    ]
}

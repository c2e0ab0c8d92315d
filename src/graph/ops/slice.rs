//! Cutting out, padding, joining and turning round.

use super::{Emission, Operation, Vjp, arity, check_axes, i64s};
use crate::graph::{Builder, Result, Shape, Value};

/// Elements `start..limit` of each dimension, every `stride`-th.
#[derive(Clone, Debug)]
pub struct Slice {
    pub start: Vec<usize>,
    pub limit: Vec<usize>,
    pub stride: Vec<usize>,
}

impl Operation for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if [&self.start, &self.limit, &self.stride]
            .iter()
            .any(|v| v.len() != x.rank())
        {
            return Err(format!(
                "bounds must have one entry for each of {} axes",
                x.rank()
            ));
        }
        let mut dims = Vec::new();
        for (i, size) in x.dims().iter().enumerate() {
            let (start, limit, stride) = (self.start[i], self.limit[i], self.stride[i]);
            if start > limit || limit > *size || stride == 0 {
                return Err(format!(
                    "{start}..{limit} step {stride} of axis {i}, which has {size}"
                ));
            }
            dims.push((limit - start).div_ceil(stride));
        }
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, x) = (rule.b, rule.ct(), rule.operands[0]);
        let edges: Vec<(i64, i64, usize)> = (0..x.rank())
            .map(|i| {
                let n = ct.dim(i);
                let covered = if n == 0 {
                    0
                } else {
                    (n - 1) * self.stride[i] + 1
                };
                let high = x.dim(i) - self.start[i] - covered;
                (self.start[i] as i64, high as i64, self.stride[i] - 1)
            })
            .collect();
        Ok(vec![Some(b.pad(ct, &edges, 0.0)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.slice",
            vec![
                ("start_indices", i64s(&self.start)),
                ("limit_indices", i64s(&self.limit)),
                ("strides", i64s(&self.stride)),
            ],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Adds the second operand, a scalar, around and between the elements of
/// the first. A negative edge crops.
#[derive(Clone, Debug)]
pub struct Pad {
    /// For each axis: before, after, between.
    pub edges: Vec<(i64, i64, usize)>,
}

impl Operation for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, value] = arity(operands)?;
        if value != Shape::scalar(x.dtype) {
            return Err("the padding value must be a scalar of the same type".into());
        }
        if self.edges.len() != x.rank() {
            return Err(format!("edges for {} axes", self.edges.len()));
        }
        let mut dims = Vec::new();
        for (size, (low, high, inner)) in x.dims().iter().zip(&self.edges) {
            let spread = size + size.saturating_sub(1) * inner;
            let total = spread as i64 + low + high;
            dims.push(usize::try_from(total).map_err(|_| format!("an axis of size {total}"))?);
        }
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, x) = (rule.b, rule.ct(), rule.operands[0]);
        let inside = || {
            // Undo the edges, then take every (inner + 1)-th element.
            let undo: Vec<_> = self
                .edges
                .iter()
                .map(|(low, high, _)| (-low, -high, 0))
                .collect();
            let spread = b.pad(ct, &undo, 0.0)?;
            let zero = vec![0; x.rank()];
            let stride: Vec<usize> = self.edges.iter().map(|(_, _, inner)| inner + 1).collect();
            let limit = spread.dims().to_vec();
            b.push1(
                Slice {
                    start: zero,
                    limit,
                    stride,
                },
                &[spread],
            )
        };
        let dx = inside()?;
        let value = rule.when(1, || {
            let all: Vec<usize> = (0..x.rank()).collect();
            b.sub(b.sum(ct, &all)?, b.sum(dx, &all)?)
        })?;
        Ok(vec![Some(dx), value])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.pad",
            vec![
                ("edge_padding_low", i64s(self.edges.iter().map(|e| e.0))),
                ("edge_padding_high", i64s(self.edges.iter().map(|e| e.1))),
                ("interior_padding", i64s(self.edges.iter().map(|e| e.2))),
            ],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// The operands one after the other along `axis`.
#[derive(Clone, Debug)]
pub struct Concatenate {
    pub axis: usize,
}

impl Operation for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let first = operands.first().ok_or("nothing to concatenate")?;
        check_axes(&[self.axis], first.rank(), "axis")?;
        let mut dims = first.dims().to_vec();
        dims[self.axis] = 0;
        for x in operands {
            let fits = x.dtype == first.dtype
                && x.rank() == first.rank()
                && (0..x.rank()).all(|i| i == self.axis || x.dims()[i] == first.dims()[i]);
            if !fits {
                return Err(format!("{x} does not fit {first} along axis {}", self.axis));
            }
            dims[self.axis] += x.dims()[self.axis];
        }
        Ok(vec![first.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let mut start = 0;
        let mut cts = Vec::new();
        for (k, x) in rule.operands.iter().enumerate() {
            let limit = start + x.dim(self.axis);
            cts.push(rule.when(k, || rule.b.slice_axis(rule.ct(), self.axis, start, limit))?);
            start = limit;
        }
        Ok(cts)
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.concatenate",
            vec![("dimension", format!("{} : i64", self.axis))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// The order of elements along `axes` turned round.
#[derive(Clone, Debug)]
pub struct Reverse {
    pub axes: Vec<usize>,
}

impl Operation for Reverse {
    fn name(&self) -> &'static str {
        "reverse"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        check_axes(&self.axes, x.rank(), "axis")?;
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![Some(rule.b.reverse(rule.ct(), &self.axes)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.reverse", vec![("dimensions", i64s(&self.axes))])
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// Elements `start..limit` along one axis.
    pub fn slice_axis(&self, x: Value, axis: usize, start: usize, limit: usize) -> Result<Value> {
        let mut from = vec![0; x.rank()];
        let mut to = x.dims().to_vec();
        if axis < x.rank() {
            (from[axis], to[axis]) = (start, limit);
        }
        if from.iter().all(|s| *s == 0) && to == x.dims() {
            return Ok(x);
        }
        self.push1(
            Slice {
                start: from,
                limit: to,
                stride: vec![1; x.rank()],
            },
            &[x],
        )
    }

    /// `x` with `value` before, after and between its elements.
    pub fn pad(&self, x: Value, edges: &[(i64, i64, usize)], value: f64) -> Result<Value> {
        if edges.len() == x.rank() && edges.iter().all(|e| *e == (0, 0, 0)) {
            return Ok(x);
        }
        let value = self.scalar(x.dtype(), value)?;
        self.push1(
            Pad {
                edges: edges.to_vec(),
            },
            &[x, value],
        )
    }

    pub fn concatenate(&self, parts: &[Value], axis: usize) -> Result<Value> {
        match parts {
            [only] => Ok(*only),
            _ => self.push1(Concatenate { axis }, parts),
        }
    }

    pub fn reverse(&self, x: Value, axes: &[usize]) -> Result<Value> {
        self.push1(
            Reverse {
                axes: axes.to_vec(),
            },
            &[x],
        )
    }

    /// The tensors of one shape as rows of a new first axis.
    pub fn stack(&self, parts: &[Value]) -> Result<Value> {
        let rows: Vec<Value> = parts
            .iter()
            .map(|p| self.reshape(*p, &[&[1], p.dims()].concat()))
            .collect::<Result<_>>()?;
        self.concatenate(&rows, 0)
    }
}

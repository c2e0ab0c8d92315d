//! Ops that move elements and compute nothing.

use super::{Emission, Operation, Vjp, arity, check_axes, i64s};
use crate::graph::{Builder, DType, Result, Shape, Value};

/// The same elements in row-major order under other dimensions.
#[derive(Clone, Debug)]
pub struct Reshape {
    pub shape: Shape,
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if x.len() != self.shape.len() || x.dtype != self.shape.dtype {
            return Err(format!("{} elements do not make {}", x.len(), self.shape));
        }
        Ok(vec![self.shape])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![Some(
            rule.b.reshape(rule.ct(), rule.operands[0].dims())?,
        )])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.reshape", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Result dimension `i` is operand dimension `permutation[i]`.
#[derive(Clone, Debug)]
pub struct Transpose {
    pub permutation: Vec<usize>,
}

impl Operation for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if self.permutation.len() != x.rank() {
            return Err(format!("a permutation of {} axes", self.permutation.len()));
        }
        check_axes(&self.permutation, x.rank(), "axis")?;
        let dims: Vec<usize> = self.permutation.iter().map(|p| x.dims()[*p]).collect();
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let mut inverse = vec![0; self.permutation.len()];
        for (i, p) in self.permutation.iter().enumerate() {
            inverse[*p] = i;
        }
        Ok(vec![Some(rule.b.transpose(rule.ct(), &inverse)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.transpose",
            vec![("permutation", i64s(&self.permutation))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Operand dimension `i` becomes result dimension `axes[i]`; a size of 1
/// and missing dimensions are repeated.
#[derive(Clone, Debug)]
pub struct BroadcastInDim {
    pub dims: Vec<usize>,
    pub axes: Vec<usize>,
}

impl Operation for BroadcastInDim {
    fn name(&self) -> &'static str {
        "broadcast_in_dim"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if self.axes.len() != x.rank() {
            return Err(format!(
                "{} axes for a tensor of rank {}",
                self.axes.len(),
                x.rank()
            ));
        }
        check_axes(&self.axes, self.dims.len(), "axis")?;
        for (size, axis) in x.dims().iter().zip(&self.axes) {
            if *size != 1 && *size != self.dims[*axis] {
                return Err(format!(
                    "size {size} cannot be repeated to {}",
                    self.dims[*axis]
                ));
            }
        }
        Ok(vec![x.with_dims(&self.dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        // Repeating is summed back: all dimensions that were repeated.
        let (b, x) = (rule.b, rule.operands[0]);
        let repeated: Vec<usize> = (0..self.dims.len())
            .filter(|d| match self.axes.iter().position(|a| a == d) {
                Some(i) => x.dim(i) == 1 && self.dims[*d] != 1,
                None => true,
            })
            .collect();
        let sum = b.sum(rule.ct(), &repeated)?;
        // What is left is in the order of `axes`, sorted; put it back.
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        order.sort_by_key(|i| self.axes[*i]);
        let sorted: Vec<usize> = order.iter().map(|i| x.dim(*i)).collect();
        let sum = b.reshape(sum, &sorted)?;
        let mut inverse = vec![0; order.len()];
        for (place, i) in order.iter().enumerate() {
            inverse[*i] = place;
        }
        Ok(vec![Some(b.transpose(sum, &inverse)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.broadcast_in_dim",
            vec![("broadcast_dimensions", i64s(&self.axes))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

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

/// A block of `sizes` whose start is given by scalar operands, one for each
/// axis, held so that the block lies inside.
#[derive(Clone, Debug)]
pub struct DynamicSlice {
    pub sizes: Vec<usize>,
}

/// Checks start indices: one integer scalar of one type for each axis.
fn check_starts(starts: &[Shape], rank: usize) -> std::result::Result<(), String> {
    if starts.len() != rank {
        return Err(format!("{} start indices for {rank} axes", starts.len()));
    }
    if starts
        .iter()
        .any(|s| s.rank() != 0 || !s.dtype.is_int() || *s != starts[0])
    {
        return Err("start indices must be integer scalars of one type".into());
    }
    Ok(())
}

impl Operation for DynamicSlice {
    fn name(&self) -> &'static str {
        "dynamic_slice"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, starts @ ..] = operands else {
            return Err("nothing to slice".into());
        };
        check_starts(starts, x.rank())?;
        if self.sizes.len() != x.rank() || self.sizes.iter().zip(x.dims()).any(|(s, d)| s > d) {
            return Err(format!("a block of {:?}", self.sizes));
        }
        Ok(vec![x.with_dims(&self.sizes)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let mut cts = vec![None; rule.operands.len()];
        let zeros = rule.b.full_like(rule.operands[0], 0.0)?;
        cts[0] = Some(
            rule.b
                .dynamic_update_slice(zeros, rule.ct(), &rule.operands[1..])?,
        );
        Ok(cts)
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.dynamic_slice",
            vec![("slice_sizes", i64s(&self.sizes))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// The first operand with a block replaced by the second, which starts at
/// the scalar operands that follow.
#[derive(Clone, Debug)]
pub struct DynamicUpdateSlice;

impl Operation for DynamicUpdateSlice {
    fn name(&self) -> &'static str {
        "dynamic_update_slice"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, update, starts @ ..] = operands else {
            return Err("nothing to update".into());
        };
        check_starts(starts, x.rank())?;
        let fits = update.dtype == x.dtype
            && update.rank() == x.rank()
            && update.dims().iter().zip(x.dims()).all(|(u, d)| u <= d);
        if !fits {
            return Err("the update does not fit inside".into());
        }
        Ok(vec![*x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, update, starts) = (rule.b, rule.ct(), rule.operands[1], &rule.operands[2..]);
        let mut cts = vec![None; rule.operands.len()];
        cts[0] = rule.when(0, || {
            b.dynamic_update_slice(ct, b.full_like(update, 0.0)?, starts)
        })?;
        cts[1] = rule.when(1, || b.dynamic_slice(ct, starts, update.dims()))?;
        Ok(cts)
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.dynamic_update_slice", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// `x` under other dimensions; `x` itself if they are the same.
    pub fn reshape(&self, x: Value, dims: &[usize]) -> Result<Value> {
        if x.dims() == dims {
            return Ok(x);
        }
        // Too high a rank cannot be a Shape; the op could not say so.
        self.push1(
            Reshape {
                shape: x.shape.with_dims(dims),
            },
            &[x],
        )
    }

    /// `x` with its axes in another order; `x` itself if it is the same.
    pub fn transpose(&self, x: Value, permutation: &[usize]) -> Result<Value> {
        if permutation.len() == x.rank() && permutation.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(x);
        }
        self.push1(
            Transpose {
                permutation: permutation.to_vec(),
            },
            &[x],
        )
    }

    /// `x` with operand axis `i` as result axis `axes[i]` of `dims`.
    pub fn broadcast_in_dim(&self, x: Value, dims: &[usize], axes: &[usize]) -> Result<Value> {
        self.push1(
            BroadcastInDim {
                dims: dims.to_vec(),
                axes: axes.to_vec(),
            },
            &[x],
        )
    }

    /// `x` repeated to `dims` by NumPy's rules; `x` itself if it has them.
    pub fn broadcast_to(&self, x: Value, dims: &[usize]) -> Result<Value> {
        if x.dims() == dims {
            return Ok(x);
        }
        let missing = dims.len().saturating_sub(x.rank());
        let axes: Vec<usize> = (missing..missing + x.rank()).collect();
        self.broadcast_in_dim(x, dims, &axes)
    }

    /// Both operands repeated to their common dimensions: the one place where
    /// binary ops broadcast. Shapes that do not fit pass through, so that the
    /// op itself refuses them by name.
    pub(super) fn broadcast_together(&self, x: Value, y: Value) -> Result<[Value; 2]> {
        match Shape::broadcast_dims(&x.shape, &y.shape) {
            Some(dims) => Ok([self.broadcast_to(x, &dims)?, self.broadcast_to(y, &dims)?]),
            None => Ok([x, y]),
        }
    }

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

    /// A block of `sizes` at `starts`.
    pub fn dynamic_slice(&self, x: Value, starts: &[Value], sizes: &[usize]) -> Result<Value> {
        let operands: Vec<Value> = std::iter::once(x).chain(starts.iter().copied()).collect();
        self.push1(
            DynamicSlice {
                sizes: sizes.to_vec(),
            },
            &operands,
        )
    }

    /// `x` with `update` written at `starts`.
    pub fn dynamic_update_slice(&self, x: Value, update: Value, starts: &[Value]) -> Result<Value> {
        let operands: Vec<Value> = [x, update].iter().chain(starts).copied().collect();
        self.push1(DynamicUpdateSlice, &operands)
    }

    /// Start indices that are 0 but for axis 0, which is `index`.
    pub fn leading_start(&self, index: Value, rank: usize) -> Result<Vec<Value>> {
        let zero = self.scalar(index.dtype(), 0.0)?;
        Ok(std::iter::once(index)
            .chain(std::iter::repeat_n(zero, rank - 1))
            .collect())
    }

    /// Row `index` of `x` along its first axis, which is dropped.
    pub fn row(&self, x: Value, index: Value) -> Result<Value> {
        let mut sizes = x.dims().to_vec();
        sizes[0] = 1;
        let row = self.dynamic_slice(x, &self.leading_start(index, x.rank())?, &sizes)?;
        self.reshape(row, &x.dims()[1..])
    }

    /// The tensors of one shape as rows of a new first axis.
    pub fn stack(&self, parts: &[Value]) -> Result<Value> {
        let rows: Vec<Value> = parts
            .iter()
            .map(|p| self.reshape(*p, &[&[1], p.dims()].concat()))
            .collect::<Result<_>>()?;
        self.concatenate(&rows, 0)
    }

    /// 1.0 where the predicate holds, else 0.0.
    pub fn indicator(&self, p: Value, dtype: DType) -> Result<Value> {
        self.convert(p, dtype)
    }
}

//! Reductions.

use std::borrow::Cow;

use super::block::check_call;
use super::{Binary, BinaryKind, Comparison, Emission, Operation, Vjp, arity, check_axes, i64s};
use crate::graph::builder::function;
use crate::graph::error::list;
use crate::graph::{Builder, DType, Graph, Result, Shape, Value, cost};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceKind {
    Sum,
    Max,
    Min,
    And,
    Or,
}

impl ReduceKind {
    pub const ALL: [Self; 5] = [Self::Sum, Self::Max, Self::Min, Self::And, Self::Or];

    pub(super) fn binary(self) -> BinaryKind {
        match self {
            Self::Sum => BinaryKind::Add,
            Self::Max => BinaryKind::Max,
            Self::Min => BinaryKind::Min,
            Self::And => BinaryKind::And,
            Self::Or => BinaryKind::Or,
        }
    }

    /// Predicates have their own reductions, and only those.
    pub(super) fn check(self, dtype: DType) -> std::result::Result<(), String> {
        let logical = matches!(self, Self::And | Self::Or);
        if logical != (dtype == DType::Pred) {
            return Err(format!(
                "{self:?} is not defined for elements of type {dtype}"
            ));
        }
        Ok(())
    }

    /// The number that leaves every other as it is; as a constant of an
    /// integer type, an infinity is the type's largest or smallest number.
    pub(super) fn identity(self) -> f64 {
        match self {
            Self::Sum | Self::Or => 0.0,
            Self::Max => f64::NEG_INFINITY,
            Self::Min => f64::INFINITY,
            Self::And => 1.0,
        }
    }
}

/// Folds `axes` away by one binary op. Operands: the tensor and the starting
/// scalar.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub kind: ReduceKind,
    pub axes: Vec<usize>,
}

/// A function of two scalars that applies one binary op.
pub(super) fn binary_body(kind: BinaryKind, dtype: DType) -> Graph {
    let scalar = Shape::scalar(dtype);
    function(&[scalar, scalar], |b, args| b.push(Binary { kind }, args))
        .expect("the op takes the type it reduces")
}

/// `dims` without `axes`.
pub(super) fn kept(rank: usize, axes: &[usize]) -> Vec<usize> {
    (0..rank).filter(|i| !axes.contains(i)).collect()
}

impl Operation for Reduce {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, start] = arity(operands)?;
        if start != Shape::scalar(x.dtype) {
            return Err("the starting value must be a scalar of the same type".into());
        }
        self.kind.check(x.dtype)?;
        check_axes(&self.axes, x.rank(), "axis")?;
        let dims: Vec<usize> = kept(x.rank(), &self.axes)
            .iter()
            .map(|i| x.dims()[*i])
            .collect();
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct, x, y) = (rule.b, rule.ct(), rule.operands[0], rule.results[0]);
        let axes = kept(x.rank(), &self.axes);
        let spread = |v: Value| b.broadcast_in_dim(v, x.dims(), &axes);
        let dx = match self.kind {
            ReduceKind::Sum => spread(ct)?,
            ReduceKind::Max | ReduceKind::Min => {
                // Equal extremes share the cotangent evenly.
                let hit = b.compare(Comparison::Eq, x, spread(y)?)?;
                let hit = b.convert(hit, x.dtype())?;
                let share = b.div(ct, b.sum(hit, &self.axes)?)?;
                b.mul(hit, spread(share)?)?
            }
            ReduceKind::And | ReduceKind::Or => return rule.none(),
        };
        if rule.needs[1] {
            return Err(rule.refuse(self.name(), "with respect to its starting value"));
        }
        Ok(vec![Some(dx), None])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Op {
            name: "stablehlo.reduce".into(),
            attributes: vec![("dimensions", i64s(&self.axes))],
            regions: vec![Cow::Owned(binary_body(
                self.kind.binary(),
                operands[0].dtype,
            ))],
            captured: 0,
        }
    }

    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        operands[0].len() as u64
    }
}

/// Folds `axes` of several tensors away together by any function, which must
/// be associative and commutative.
///
/// Operands: tensors of the same dimensions, then a starting scalar for each.
/// The body takes a scalar of each for what is folded so far and one of each
/// for what comes next.
#[derive(Clone, Debug)]
pub struct GeneralReduce {
    pub body: Graph,
    pub axes: Vec<usize>,
}

impl Operation for GeneralReduce {
    fn name(&self) -> &'static str {
        "general_reduce"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let (tensors, starts) = operands.split_at(operands.len() / 2);
        let first = tensors.first().ok_or("nothing to reduce")?;
        let scalars: Vec<Shape> = tensors.iter().map(|x| x.with_dims(&[])).collect();
        if starts != scalars || tensors.iter().any(|x| x.dims() != first.dims()) {
            return Err(
                "expected tensors of the same dimensions, then a scalar of each one's type".into(),
            );
        }
        check_call(&self.body, &[&scalars[..], &scalars].concat())?;
        if self.body.output_shapes() != scalars {
            return Err(format!(
                "the function gives ({})",
                list(&self.body.output_shapes())
            ));
        }
        check_axes(&self.axes, first.rank(), "axis")?;
        let dims: Vec<usize> = kept(first.rank(), &self.axes)
            .iter()
            .map(|i| first.dims()[*i])
            .collect();
        Ok(tensors.iter().map(|x| x.with_dims(&dims)).collect())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(
            self.name(),
            "the function is not known to be one with a derivative; use sum, max or min",
        ))
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Op {
            name: "stablehlo.reduce".into(),
            attributes: vec![("dimensions", i64s(&self.axes))],
            regions: vec![Cow::Borrowed(&self.body)],
            captured: 0,
        }
    }

    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        operands[0].len() as u64 * cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
}

impl Builder {
    /// Folds `axes` of `x` away; no axes leave `x` as it is.
    pub fn reduce(&self, kind: ReduceKind, x: Value, axes: &[usize]) -> Result<Value> {
        if axes.is_empty() {
            return Ok(x);
        }
        let start = self.scalar(x.dtype(), kind.identity())?;
        self.push1(
            Reduce {
                kind,
                axes: axes.to_vec(),
            },
            &[x, start],
        )
    }

    pub fn sum(&self, x: Value, axes: &[usize]) -> Result<Value> {
        self.reduce(ReduceKind::Sum, x, axes)
    }

    pub fn reduce_max(&self, x: Value, axes: &[usize]) -> Result<Value> {
        self.reduce(ReduceKind::Max, x, axes)
    }

    pub fn reduce_min(&self, x: Value, axes: &[usize]) -> Result<Value> {
        self.reduce(ReduceKind::Min, x, axes)
    }

    /// The mean over `axes`.
    pub fn mean(&self, x: Value, axes: &[usize]) -> Result<Value> {
        let count: usize = axes
            .iter()
            .map(|a| x.dims().get(*a).copied().unwrap_or(1))
            .product();
        self.scale(self.sum(x, axes)?, 1.0 / count as f64)
    }

    /// The sum over all axes.
    pub fn sum_all(&self, x: Value) -> Result<Value> {
        self.sum(x, &(0..x.rank()).collect::<Vec<_>>())
    }

    /// The place (i32) of the largest element along `axis`: the first of
    /// equal ones.
    pub fn argmax(&self, x: Value, axis: usize) -> Result<Value> {
        let places = self.iota(x.shape.with_dtype(DType::I32), axis)?;
        let scalars = [x, places].map(|v| v.shape.with_dims(&[]));
        let body = function(&[scalars, scalars].concat(), |b, args| {
            let [x, i, y, j] = [args[0], args[1], args[2], args[3]];
            let earlier = b.and(
                b.compare(Comparison::Eq, x, y)?,
                b.compare(Comparison::Lt, i, j)?,
            )?;
            let first = b.or(b.compare(Comparison::Gt, x, y)?, earlier)?;
            Ok(vec![b.select(first, x, y)?, b.select(first, i, j)?])
        })?;
        let lowest = self.scalar(x.dtype(), ReduceKind::Max.identity())?;
        // As a start it must lose against every place.
        let nowhere = self.scalar(DType::I32, f64::INFINITY)?;
        let op = GeneralReduce {
            body,
            axes: vec![axis],
        };
        Ok(self.push(op, &[x, places, lowest, nowhere])?[1])
    }

    /// `reduced`, which has lost `axes`, spread back over the shape of `like`.
    pub fn spread(&self, reduced: Value, like: Value, axes: &[usize]) -> Result<Value> {
        self.broadcast_in_dim(reduced, like.dims(), &kept(like.rank(), axes))
    }
}

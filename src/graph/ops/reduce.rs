//! Reductions.

use std::borrow::Cow;

use super::{Binary, BinaryKind, Comparison, Emission, Operation, Vjp, arity, check_axes, i64s};
use crate::graph::{Builder, DType, Graph, Result, Shape, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceKind {
    Sum,
    Max,
    Min,
    And,
    Or,
}

impl ReduceKind {
    pub(super) fn binary(self) -> BinaryKind {
        match self {
            Self::Sum => BinaryKind::Add,
            Self::Max => BinaryKind::Max,
            Self::Min => BinaryKind::Min,
            Self::And => BinaryKind::And,
            Self::Or => BinaryKind::Or,
        }
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

/// Folds `axes` away. Operands: the tensor and the starting scalar.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub kind: ReduceKind,
    pub axes: Vec<usize>,
}

/// A function of two scalars that applies one binary op.
pub(super) fn binary_body(kind: BinaryKind, dtype: DType) -> Graph {
    let scalar = Shape::scalar(dtype);
    crate::graph::builder::function(&[scalar, scalar], |b, args| b.push(Binary { kind }, args))
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
        let logical = matches!(self.kind, ReduceKind::And | ReduceKind::Or);
        if logical != (x.dtype == DType::Pred) {
            return Err(format!(
                "{:?} is not defined for elements of type {}",
                self.kind, x.dtype
            ));
        }
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
        }
    }

    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        operands[0].len() as u64
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

    /// `reduced`, which has lost `axes`, spread back over the shape of `like`.
    pub fn spread(&self, reduced: Value, like: Value, axes: &[usize]) -> Result<Value> {
        self.broadcast_in_dim(reduced, like.dims(), &kept(like.rank(), axes))
    }
}

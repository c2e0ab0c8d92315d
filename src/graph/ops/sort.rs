//! Ordering.

use std::borrow::Cow;

use super::{
    Compare, Comparison, Emission, IndexDims, Operation, Scatter, ScatterKind, Vjp, arity,
    check_axes,
};
use crate::graph::builder::function;
use crate::graph::{Builder, DType, Graph, Result, Shape, Value};

/// Orders the first operand along `axis` and moves the others with it.
/// Equal keys keep their order; NaNs of either sign lie at the ends.
#[derive(Clone, Debug)]
pub struct Sort {
    pub axis: usize,
    pub descending: bool,
}

impl Sort {
    /// Whether the first of two keys goes before the second; takes a pair of
    /// scalars for each operand.
    fn comparator(&self, operands: &[Shape]) -> Graph {
        let pairs: Vec<Shape> = operands
            .iter()
            .flat_map(|x| [Shape::scalar(x.dtype); 2])
            .collect();
        let op = Compare {
            direction: if self.descending {
                Comparison::Gt
            } else {
                Comparison::Lt
            },
            total: true,
        };
        function(&pairs, |b, args| b.push(op, &args[..2])).expect("keys of one type compare")
    }
}

impl Operation for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let first = operands.first().ok_or("nothing to sort")?;
        if operands.iter().any(|x| x.dims() != first.dims()) {
            return Err("all must have the dimensions of the first".into());
        }
        check_axes(&[self.axis], first.rank(), "axis")?;
        Ok(operands.to_vec())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        // Sorting the places along gives the permutation; sorting the
        // cotangents by it puts them back.
        let (b, keys) = (rule.b, rule.operands[0]);
        let places = b.iota(keys.shape.with_dtype(DType::I32), self.axis)?;
        let order = b.push(self.clone(), &[keys, places])?[1];
        let mut back = vec![order];
        let moved: Vec<usize> = (0..rule.operands.len())
            .filter(|k| rule.needs[*k] && rule.cts[*k].is_some())
            .collect();
        back.extend(moved.iter().filter_map(|k| rule.cts[*k]));
        let found = b.sort(&back, self.axis, false)?;
        let mut cts = vec![None; rule.operands.len()];
        for (k, ct) in moved.into_iter().zip(&found[1..]) {
            cts[k] = Some(*ct);
        }
        Ok(cts)
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Op {
            name: "stablehlo.sort".into(),
            attributes: vec![
                ("dimension", format!("{} : i64", self.axis)),
                ("is_stable", "true".into()),
            ],
            regions: vec![Cow::Owned(self.comparator(operands))],
            captured: 0,
        }
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// The `k` largest elements along the last axis, in falling order, and their
/// places (i32). Of equal elements the first comes first.
#[derive(Clone, Debug)]
pub struct TopK {
    pub k: usize,
}

impl Operation for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        let Some((n, outer)) = x.dims().split_last() else {
            return Err("a scalar has no largest elements".into());
        };
        if self.k > *n {
            return Err(format!("{} largest of {n}", self.k));
        }
        let shape = x.with_dims(&[outer, &[self.k]].concat());
        Ok(vec![shape, shape.with_dtype(DType::I32)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, x, places) = (rule.b, rule.operands[0], rule.results[1]);
        let op = Scatter {
            kind: ScatterKind::Add,
            dims: IndexDims::along_last(x.rank()),
            unique: true,
        };
        let zeros = b.full_like(x, 0.0)?;
        Ok(vec![Some(b.scatter(op, zeros, places, rule.ct())?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("chlo.top_k", vec![("k", format!("{} : i64", self.k))])
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// Orders `operands[0]` along `axis`, the others with it.
    pub fn sort(&self, operands: &[Value], axis: usize, descending: bool) -> Result<Vec<Value>> {
        self.push(Sort { axis, descending }, operands)
    }

    /// The order that would sort `x` along `axis`, as i32 places.
    pub fn argsort(&self, x: Value, axis: usize, descending: bool) -> Result<Value> {
        let places = self.iota(x.shape.with_dtype(DType::I32), axis)?;
        Ok(self.sort(&[x, places], axis, descending)?[1])
    }

    /// The `k` largest elements along the last axis, and their places.
    pub fn top_k(&self, x: Value, k: usize) -> Result<[Value; 2]> {
        let found = self.push(TopK { k }, &[x])?;
        Ok([found[0], found[1]])
    }
}

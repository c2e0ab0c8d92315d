//! Reading and writing at indices that are known only when the program runs.

use std::borrow::Cow;

use super::reduce::binary_body;
use super::{BinaryKind, Clamp, Emission, IndexDims, Operation, Vjp, arity, bracketed, i64s};
use crate::graph::builder::function;
use crate::graph::{Builder, DType, Result, Shape, Value};

/// Copies slices. Operands: the tensor and the indices. A slice that would
/// reach outside is moved inside.
#[derive(Clone, Debug)]
pub struct Gather {
    pub dims: IndexDims,
    /// The size of a slice on each axis of the tensor.
    pub sizes: Vec<usize>,
}

impl Operation for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, index] = arity(operands)?;
        Ok(vec![self.dims.small(&x, &index, &self.sizes)?])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, x, index) = (rule.b, rule.operands[0], rule.operands[1]);
        // A scatter drops what reaches outside; a gather moves it inside.
        let limit = self.dims.limits(b, x, index, &self.sizes)?;
        let index = b.push1(Clamp, &[b.full_like(index, 0.0)?, index, limit])?;
        let op = Scatter {
            kind: ScatterKind::Add,
            dims: self.dims.clone(),
            unique: false,
        };
        let zeros = b.full_like(x, 0.0)?;
        Ok(vec![Some(b.scatter(op, zeros, index, rule.ct())?), None])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        let d = &self.dims;
        let numbers = format!(
            "#stablehlo.gather<offset_dims = {}, collapsed_slice_dims = {}, operand_batching_dims = {}, start_indices_batching_dims = {}, start_index_map = {}, index_vector_dim = {}>",
            bracketed(&d.window),
            bracketed(&d.collapsed),
            bracketed(&d.batch),
            bracketed(&d.index_batch),
            bracketed(&d.index_map),
            d.index_axis
        );
        Emission::op(
            "stablehlo.gather",
            vec![
                ("dimension_numbers", numbers),
                ("slice_sizes", i64s(&self.sizes)),
            ],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// What happens to an element that a slice is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterKind {
    Add,
    Replace,
}

/// Writes slices. Operands: the tensor, the indices, and the slices. A slice
/// that reaches outside is dropped.
#[derive(Clone, Debug)]
pub struct Scatter {
    pub kind: ScatterKind,
    pub dims: IndexDims,
    /// A promise that no element is written twice. Without it, which of two
    /// replacements wins is the plugin's choice.
    pub unique: bool,
}

impl Operation for Scatter {
    fn name(&self) -> &'static str {
        "scatter"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, index, updates] = arity(operands)?;
        if self.dims.window.iter().any(|i| *i >= updates.rank()) {
            return Err(format!("window axes {:?} of {updates}", self.dims.window));
        }
        let sizes = self.dims.sizes(&x, &updates);
        let expected = self.dims.small(&x, &index, &sizes)?;
        if expected != updates {
            return Err(format!("the indices name slices of {expected}"));
        }
        if self.kind == ScatterKind::Add && x.dtype == DType::Pred {
            return Err("predicates cannot be added".into());
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let (b, ct) = (rule.b, rule.ct());
        let [x, index, updates] = [rule.operands[0], rule.operands[1], rule.operands[2]];
        if self.kind == ScatterKind::Replace && !self.unique {
            return Err(rule.refuse(
                self.name(),
                "which of two replacements of an element wins is not known; promise unique indices",
            ));
        }
        let dx = rule.when(0, || match self.kind {
            ScatterKind::Add => Ok(ct),
            ScatterKind::Replace => b.scatter(self.clone(), ct, index, b.full_like(updates, 0.0)?),
        })?;
        let du = rule.when(2, || {
            let sizes = self.dims.sizes(&x.shape, &updates.shape);
            let slices = b.gather(ct, index, &self.dims, &sizes)?;
            let inside = self.dims.inside(b, x, index, updates)?;
            b.select(inside, slices, b.full_like(updates, 0.0)?)
        })?;
        Ok(vec![dx, None, du])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let d = &self.dims;
        let numbers = format!(
            "#stablehlo.scatter<update_window_dims = {}, inserted_window_dims = {}, input_batching_dims = {}, scatter_indices_batching_dims = {}, scatter_dims_to_operand_dims = {}, index_vector_dim = {}>",
            bracketed(&d.window),
            bracketed(&d.collapsed),
            bracketed(&d.batch),
            bracketed(&d.index_batch),
            bracketed(&d.index_map),
            d.index_axis
        );
        let body = match self.kind {
            ScatterKind::Add => binary_body(BinaryKind::Add, operands[0].dtype),
            ScatterKind::Replace => {
                let scalar = Shape::scalar(operands[0].dtype);
                function(&[scalar, scalar], |_, args| Ok(vec![args[1]]))
                    .expect("a function that gives its argument is valid")
            }
        };
        Emission::Op {
            name: "stablehlo.scatter".into(),
            attributes: vec![
                ("scatter_dimension_numbers", numbers),
                ("unique_indices", self.unique.to_string()),
            ],
            regions: vec![Cow::Owned(body)],
            captured: 0,
        }
    }

    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        match self.kind {
            ScatterKind::Add => operands[2].len() as u64,
            ScatterKind::Replace => 0,
        }
    }
}

impl Builder {
    /// Slices of `x` of `sizes` at `index`.
    pub fn gather(
        &self,
        x: Value,
        index: Value,
        dims: &IndexDims,
        sizes: &[usize],
    ) -> Result<Value> {
        let op = Gather {
            dims: dims.clone(),
            sizes: sizes.to_vec(),
        };
        self.push1(op, &[x, index])
    }

    /// `x` with `updates` written at `index`.
    pub fn scatter(&self, op: Scatter, x: Value, index: Value, updates: Value) -> Result<Value> {
        self.push1(op, &[x, index, updates])
    }

    /// Rows of `x` (its first axis), one for each element of `index`.
    pub fn take_rows(&self, x: Value, index: Value) -> Result<Value> {
        let mut sizes = x.dims().to_vec();
        let Some(first) = sizes.first_mut() else {
            return Err(self.refusal("take_rows", &[x, index], "a scalar has no rows"));
        };
        *first = 1;
        self.gather(x, index, &IndexDims::rows(x.rank(), index.rank()), &sizes)
    }

    /// Elements of `x` along its last axis: for `x` of `[.., n]` and `index`
    /// of `[.., k]`, the result is `[.., k]`.
    pub fn take_along_last(&self, x: Value, index: Value) -> Result<Value> {
        if x.rank() == 0 || index.rank() != x.rank() {
            return Err(self.refusal(
                "take_along_last",
                &[x, index],
                "both must have the same axes, one at least",
            ));
        }
        self.gather(
            x,
            index,
            &IndexDims::along_last(x.rank()),
            &vec![1; x.rank()],
        )
    }
}

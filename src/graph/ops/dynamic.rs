//! Blocks whose place is known only when the program runs.

use super::{Emission, Operation, Vjp, i64s};
use crate::graph::{Builder, Result, Shape, Value};

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

    /// Start indices that are 0 but for `axis`, which is `index`.
    pub fn starts(&self, axis: usize, index: Value, rank: usize) -> Result<Vec<Value>> {
        let mut starts = vec![self.scalar(index.dtype(), 0.0)?; rank];
        starts[axis] = index;
        Ok(starts)
    }

    /// Row `index` of `x` along `axis`, which is dropped.
    pub fn row(&self, x: Value, axis: usize, index: Value) -> Result<Value> {
        if axis >= x.rank() {
            let reason = format!("there is no axis {axis}");
            return Err(self.refusal("row", &[x, index], reason));
        }
        let (mut block, mut rest) = (x.dims().to_vec(), x.dims().to_vec());
        block[axis] = 1;
        rest.remove(axis);
        let row = self.dynamic_slice(x, &self.starts(axis, index, x.rank())?, &block)?;
        self.reshape(row, &rest)
    }
}

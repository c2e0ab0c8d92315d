//! One function applied to a batch chunk by chunk.
//!
//! What treats the rows of a batch apart need not see them all at once. A loop
//! over chunks gives the same results with the memory of one chunk, and a
//! second loop, in the reverse walk, the same gradients: the chain rule, chunk
//! by chunk (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size
//! under Memory Limited Setup").

use std::borrow::Cow;

use super::block::{Scan, backward, by_need, check_call};
use super::{Emission, Operation, Vjp};
use crate::graph::builder::function;
use crate::graph::{Builder, DType, Graph, Result, Shape, Sharding, Value, cost};

/// Applies `body` to each of `chunks` parts of a batch, one after the other.
///
/// Operands: `split` tensors `[N, ...]`, then shared ones. The body takes the
/// rows of one chunk `[N / chunks, ...]` of each split one and all of each
/// shared one; it gives as many rows. Results: `[N, ...]`, in the order of the
/// batch. Nothing else than the body's own arithmetic may depend on which rows
/// share a chunk: that is the caller's to see to.
///
/// Chunk k holds rows k, k + chunks, k + 2 chunks, ...: of a batch that is
/// split over devices each chunk holds as many rows of every device, and none
/// moves.
///
/// The reverse walk keeps the operands alone: it computes each chunk again and
/// sums the cotangents of the shared ones, in f32 where they are narrower.
#[derive(Clone, Debug)]
pub struct MapChunks {
    pub body: Graph,
    pub chunks: usize,
    pub split: usize,
}

/// The type in which numbers of a type are summed over chunks.
fn sum_type(dtype: DType) -> DType {
    match dtype {
        DType::BF16 | DType::F16 => DType::F32,
        other => other,
    }
}

/// A shape `[N, ...]` with `dims` in place of N.
fn with_rows(shape: Shape, dims: &[usize]) -> Shape {
    shape.with_dims(&[dims, &shape.dims()[1..]].concat())
}

impl MapChunks {
    /// `[N, ...]` to `[N / chunks, chunks, ...]`: what a [`Scan`] along axis 1
    /// takes. Devices that had so many rows have as many of each chunk.
    fn stacked(&self, b: &Builder, batch: &[Value]) -> Result<Vec<Value>> {
        batch
            .iter()
            .map(|x| {
                let dims = [x.dim(0) / self.chunks, self.chunks];
                rows_in_place(b, *x, with_rows(x.shape, &dims))
            })
            .collect()
    }

    /// The way back.
    fn unstacked(&self, b: &Builder, stacked: &[Value]) -> Result<Vec<Value>> {
        stacked
            .iter()
            .map(|x| {
                let (rows, inner) = (x.dim(0) * self.chunks, &x.dims()[2..]);
                rows_in_place(b, *x, x.shape.with_dims(&[&[rows], inner].concat()))
            })
            .collect()
    }

    fn scan(&self, body: Graph, carried: usize) -> Scan {
        Scan {
            body,
            carried,
            axis: 1,
            length: self.chunks,
            reverse: false,
        }
    }

    /// The shapes of one chunk of each split operand.
    fn chunk_shapes(&self, split: &[Shape]) -> Vec<Shape> {
        let chunk = |x: &Shape| with_rows(*x, &[x.dims()[0] / self.chunks]);
        split.iter().map(chunk).collect()
    }

    /// The first loop: it hands the shared operands from turn to turn.
    fn lower(&self, operands: &[Shape]) -> Result<Graph> {
        let (split, shared) = operands.split_at(self.split);
        let turn = [shared, &self.chunk_shapes(split)].concat();
        let body = function(&turn, |b, args| {
            let (shared, chunk) = args.split_at(shared.len());
            let rows = b.inline(&self.body, &[chunk, shared].concat())?;
            Ok([shared, &rows].concat())
        })?;
        function(operands, |b, args| {
            let (split, shared) = args.split_at(self.split);
            let args = [shared, &self.stacked(b, split)?].concat();
            let found = b.push(self.scan(body, shared.len()), &args)?;
            self.unstacked(b, &found[shared.len()..])
        })
    }
}

/// `x` in another shape, each device keeping its rows.
fn rows_in_place(b: &Builder, x: Value, shape: Shape) -> Result<Value> {
    let x = b.reshape(x, shape.dims())?;
    b.constrain(x, &Sharding::split(shape.rank(), 0))
}

impl Operation for MapChunks {
    fn name(&self) -> &'static str {
        "map_chunks"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        if self.split == 0 || operands.len() < self.split || self.chunks == 0 {
            return Err(format!("{} split, {} chunks", self.split, self.chunks));
        }
        let (split, shared) = operands.split_at(self.split);
        let rows = split[0].dims().first().copied().unwrap_or(0);
        if rows == 0 || !rows.is_multiple_of(self.chunks) {
            return Err(format!("{rows} rows in {} chunks", self.chunks));
        }
        if let Some(x) = split.iter().find(|x| x.dims().first() != Some(&rows)) {
            return Err(format!("{x} has not {rows} rows"));
        }
        check_call(&self.body, &[&self.chunk_shapes(split), shared].concat())?;
        let outputs = self.body.output_shapes();
        let chunk = rows / self.chunks;
        if let Some(y) = outputs.iter().find(|y| y.dims().first() != Some(&chunk)) {
            return Err(format!("the body gives {y} for {chunk} rows"));
        }
        Ok(outputs.iter().map(|y| with_rows(*y, &[rows])).collect())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let b = rule.b;
        let (split, shared) = rule.operands.split_at(self.split);
        let summed = shared.iter().zip(&rule.needs[self.split..]);
        let summed: Vec<Shape> = summed
            .filter(|(_, need)| **need)
            .map(|(v, _)| v.shape)
            .collect();
        let mut carried = shared.to_vec();
        for shape in &summed {
            carried.push(b.full(shape.with_dtype(sum_type(shape.dtype)), 0.0)?);
        }
        let mut batch = split.to_vec();
        for k in 0..rule.cts.len() {
            batch.push(rule.ct_or_zero(k)?);
        }
        let shapes = |values: &[Value]| -> Vec<Shape> { values.iter().map(|v| v.shape).collect() };
        let turn = [shapes(&carried), self.chunk_shapes(&shapes(&batch))].concat();
        // Gives the needed cotangents: those of chunks first.
        let back = backward(&self.body, rule.needs)?;
        let body = function(&turn, |b, args| {
            let (carried, batch) = args.split_at(carried.len());
            let (shared, sums) = carried.split_at(shared.len());
            let (chunk, cts) = batch.split_at(self.split);
            let found = b.inline(&back, &[chunk, shared, cts].concat())?;
            let (rows, terms) = found.split_at(found.len() - sums.len());
            let mut next = shared.to_vec();
            for (sum, term) in sums.iter().zip(terms) {
                next.push(b.add(*sum, b.convert(*term, sum.dtype())?)?);
            }
            Ok([&next, rows].concat())
        })?;
        let args = [carried.clone(), self.stacked(b, &batch)?].concat();
        let found = b.push(self.scan(body, carried.len()), &args)?;
        let (carried, rows) = found.split_at(carried.len());
        let mut cts = self.unstacked(b, rows)?;
        for (sum, shape) in carried[shared.len()..].iter().zip(&summed) {
            cts.push(b.convert(*sum, shape.dtype)?);
        }
        Ok(by_need(rule.needs, cts))
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let lowered = self.lower(operands);
        Emission::Inline(Cow::Owned(
            lowered.expect("the loop of chunks that were inferred is valid"),
        ))
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        self.turns() * cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.body]
    }

    fn turns(&self) -> u64 {
        self.chunks as u64
    }
}

impl Builder {
    /// Applies `body` to `chunks` parts of the batch `split` in a loop: see
    /// [`MapChunks`]. `body` is given one chunk and the `shared` values.
    ///
    /// # Errors
    /// If `chunks` does not divide the batch.
    pub fn map_chunks(
        &self,
        chunks: usize,
        split: &[Value],
        shared: &[Value],
        body: impl FnOnce(&Builder, &[Value], &[Value]) -> Result<Vec<Value>>,
    ) -> Result<Vec<Value>> {
        let operands = [split, shared].concat();
        let chunk = |x: &Value| match x.dims().first() {
            Some(rows) if chunks > 0 => Ok(with_rows(x.shape, &[rows / chunks])),
            _ => Err(self.refusal("map_chunks", &operands, format!("{chunks} chunks"))),
        };
        let mut shapes = split.iter().map(chunk).collect::<Result<Vec<_>>>()?;
        shapes.extend(shared.iter().map(|v| v.shape));
        let body = function(&shapes, |b, args| {
            let (chunk, shared) = args.split_at(split.len());
            body(b, chunk, shared)
        })?;
        let split = split.len();
        let op = MapChunks {
            body,
            chunks,
            split,
        };
        self.push(op, &operands)
    }
}

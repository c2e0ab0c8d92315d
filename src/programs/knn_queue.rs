//! The kNN monitor (appendix A, "kNN monitor"; weights of Wu et al. 2018): a
//! queue of the features of past batches, in the state of the train step,
//! against which a batch is classified now and then.
//!
//! Letters in names of values: b batch, q rows of the queue, k neighbours,
//! c classes.

use crate::graph::builder::function;
use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, GraphError, Result, Shape, Sharding, Value};
use crate::nn::l2_normalize;

/// Features of past training samples, oldest overwritten first.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// f32 [Q, D], L2-normalised rows.
    pub features: Value,
    /// i32 [Q]: classes; -1 for none.
    pub labels: Value,
    /// u32 [Q]: which sample a row is of.
    pub ids: Value,
    /// i32 []: the row that is written next.
    pub pointer: Value,
    /// i32 []: rows written so far, Q at most; they are the first ones.
    pub filled: Value,
}

/// How the queue classifies.
#[derive(Clone, Copy, Debug)]
pub struct Vote {
    /// Neighbours that vote; all rows where the queue has fewer.
    pub k: usize,
    /// A neighbour votes with weight exp(cosine / temperature).
    pub temperature: f64,
    /// Labels are below this.
    pub classes: usize,
}

/// A batch: its samples' features (f32 [B, D], of any length; no gradient
/// passes), labels (i32 [B]; -1 for none) and ids (u32 [B]).
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    pub features: Value,
    pub labels: Value,
    pub ids: Value,
}

/// Classifies the batch against the queue where `classify` (pred []) holds,
/// then puts it into the queue in the place of the oldest rows.
///
/// Returns the new queue and the top-1 accuracy in percent (f32 []) over the
/// labelled samples. Rows of the sample itself do not vote. The accuracy is
/// NaN where it was not asked for, where the queue is empty, and where
/// nothing in the batch is labelled.
///
/// The queue is replicated over the devices, the batch may be split.
///
/// # Errors
/// If shapes do not fit, or B does not divide Q: an insertion would wrap.
pub fn step(
    b: &Builder,
    queue: &Queue,
    batch: &Samples,
    classify: Value,
    vote: Vote,
) -> Result<(Queue, Value)> {
    let _scope = b.scope("knn_queue");
    let rows = queue.features.dims().first().copied().unwrap_or(0);
    let size = batch.features.dims().first().copied().unwrap_or(0);
    if size == 0 || rows == 0 || rows % size != 0 {
        return Err(GraphError::Invalid(format!(
            "a kNN queue of {} for batches of {}: the batch must divide the queue",
            queue.features.shape, batch.features.shape
        )));
    }
    let batch = Samples {
        features: b.stop_gradient(l2_normalize(b, batch.features)?)?,
        ..*batch
    };
    let args = [
        batch.features,
        batch.labels,
        batch.ids,
        queue.features,
        queue.labels,
        queue.ids,
        queue.filled,
        queue.pointer,
    ];
    let shapes = args.map(|v| v.shape);
    let yes = function(&shapes, |b, args| {
        Ok(vec![accuracy(b, &args[..7], vote)?, args[7]])
    })?;
    let no = function(&shapes, |b, args| {
        Ok(vec![b.scalar(DType::F32, f64::NAN)?, args[7]])
    })?;
    // The pointer passes through the branch only so that the insertion must
    // come after it: else the compiler copies the whole queue, twice, to keep
    // the old rows for the branch.
    let found = b.cond(classify, yes, no, &args)?;
    let top1 = found[0];
    let queue = &Queue {
        pointer: found[1],
        ..*queue
    };
    Ok((enqueue(b, queue, &batch, rows, size)?, top1))
}

/// Writes the batch at the pointer and moves the pointer on.
fn enqueue(b: &Builder, queue: &Queue, batch: &Samples, rows: usize, size: usize) -> Result<Queue> {
    let write = |old: Value, new: Value| {
        let new = b.constrain(new, &Sharding::replicated(new.rank()))?;
        let start = b.starts(0, queue.pointer, old.rank())?;
        b.dynamic_update_slice(old, new, &start)
    };
    let rows_i32 = b.scalar(DType::I32, rows as f64)?;
    let next = b.shift(queue.pointer, size as f64)?;
    let filled = b.shift(queue.filled, size as f64)?;
    Ok(Queue {
        features: write(queue.features, batch.features)?,
        labels: write(queue.labels, batch.labels)?,
        ids: write(queue.ids, batch.ids)?,
        pointer: b.rem(next, rows_i32)?,
        filled: b.min(filled, rows_i32)?,
    })
}

/// The share of labelled samples, in percent, whose neighbours' votes name
/// their class.
fn accuracy(b: &Builder, args: &[Value], vote: Vote) -> Result<Value> {
    let &[x, labels_b, ids_b, features, labels_q, ids_q, filled] = args else {
        unreachable!("as many as `step` passes");
    };
    // Similarities; -inf for rows that must not vote.
    let cosines_bq = b.dot(x, features, &[1], &[1])?;
    let grid = cosines_bq.shape;
    let across = |v: Value, axis: usize| b.broadcast_in_dim(v, grid.dims(), &[axis]);
    let row = b.iota(grid.with_dtype(DType::I32), 1)?;
    let empty = b.compare(Comparison::Ge, row, b.broadcast_to(filled, grid.dims())?)?;
    let itself = b.compare(Comparison::Eq, across(ids_b, 0)?, across(ids_q, 1)?)?;
    let barred = b.or(empty, itself)?;
    let never = b.full_like(cosines_bq, f64::NEG_INFINITY)?;
    let k = vote.k.min(grid.dims()[1]);
    let [cosines_bk, rows_bk] = b.top_k(b.select(barred, never, cosines_bq)?, k)?;

    // A factor common to all votes of a sample decides nothing: relative to
    // the nearest neighbour no temperature overflows. Cosines are at least
    // -1, which keeps -inf out of the difference where no row may vote.
    let nearest = b.reduce_max(cosines_bk, &[1])?;
    let nearest = b.max(nearest, b.full_like(nearest, -1.0)?)?;
    let behind = b.sub(cosines_bk, b.spread(nearest, cosines_bk, &[1])?)?;
    let weights_bk = b.exp(b.scale(behind, 1.0 / vote.temperature)?)?;

    let labels_bk = b.take_rows(labels_q, rows_bk)?;
    let size = grid.dims()[0];
    let dims_bkc = [size, k, vote.classes];
    let class = b.iota(Shape::new(DType::I32, &dims_bkc), 2)?;
    let hit = b.compare(
        Comparison::Eq,
        class,
        b.broadcast_in_dim(labels_bk, &dims_bkc, &[0, 1])?,
    )?;
    let weights_bkc = b.broadcast_in_dim(weights_bk, &dims_bkc, &[0, 1])?;
    let votes_bc = b.sum(
        b.select(hit, weights_bkc, b.full_like(weights_bkc, 0.0)?)?,
        &[1],
    )?;

    let most = b.reduce_max(votes_bc, &[1])?;
    let voted = b.compare(Comparison::Gt, most, b.full_like(most, 0.0)?)?;
    let predicted = b.argmax(votes_bc, 1)?;
    let right = b.and(voted, b.compare(Comparison::Eq, predicted, labels_b)?)?;
    let zero = b.full_like(labels_b, 0.0)?;
    let labelled = b.compare(Comparison::Ge, labels_b, zero)?;
    let any = b.compare(Comparison::Gt, filled, b.full_like(filled, 0.0)?)?;
    let counted = b.and(labelled, any)?;
    let count = |of: Value| b.sum_all(b.convert(of, DType::F32)?);
    // 0 / 0 is the NaN of an empty queue.
    b.scale(
        b.div(count(b.and(right, counted)?)?, count(counted)?)?,
        100.0,
    )
}

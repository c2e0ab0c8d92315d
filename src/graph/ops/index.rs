//! Which part of a tensor an index names.

use super::{Comparison, ReduceKind, check_axes};
use crate::graph::{Builder, Result, Shape, Value};

/// How an index tensor names slices of a large tensor, in StableHLO's terms.
///
/// The index tensor holds, along `index_axis`, vectors that say where a
/// slice starts; its other axes number the slices. The slices, stacked along
/// those axes, are the small tensor: what a gather gives and what a scatter
/// takes. One description serves both, since each is the other's transpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexDims {
    /// Axes of the small tensor that run within a slice.
    pub window: Vec<usize>,
    /// Axes of the large tensor that a slice has with size 1, and which the
    /// small tensor lacks.
    pub collapsed: Vec<usize>,
    /// Axes of the large tensor that run along with `index_batch`; lacking
    /// in the small tensor's slices.
    pub batch: Vec<usize>,
    /// Axes of the index tensor that run along with `batch`.
    pub index_batch: Vec<usize>,
    /// Component `i` of an index vector is a place on this axis of the large
    /// tensor.
    pub index_map: Vec<usize>,
    /// The axis of index vectors; the rank of the index tensor if its
    /// elements are themselves the indices.
    pub index_axis: usize,
}

impl IndexDims {
    /// Rows of the large tensor's first axis, for indices of any shape.
    pub fn rows(large: usize, index: usize) -> Self {
        Self {
            window: (index..index + large - 1).collect(),
            collapsed: vec![0],
            index_map: vec![0],
            index_axis: index,
            ..Self::default()
        }
    }

    /// Elements along the last axis, for each place of the axes before it.
    pub fn along_last(rank: usize) -> Self {
        Self {
            collapsed: vec![rank - 1],
            batch: (0..rank - 1).collect(),
            index_batch: (0..rank - 1).collect(),
            index_map: vec![rank - 1],
            index_axis: rank,
            ..Self::default()
        }
    }

    /// Axes of the large tensor that the slices keep.
    fn kept(&self, rank: usize) -> Vec<usize> {
        (0..rank)
            .filter(|i| !self.collapsed.contains(i) && !self.batch.contains(i))
            .collect()
    }

    /// Sizes of the index tensor's axes that number the slices.
    fn slices(&self, index: &Shape) -> Vec<usize> {
        (0..index.rank())
            .filter(|i| *i != self.index_axis)
            .map(|i| index.dims()[i])
            .collect()
    }

    /// Slice sizes on the large tensor, given the small one.
    pub(super) fn sizes(&self, large: &Shape, small: &Shape) -> Vec<usize> {
        let mut sizes = vec![1; large.rank()];
        for (axis, place) in self.kept(large.rank()).into_iter().zip(&self.window) {
            sizes[axis] = small.dims()[*place];
        }
        sizes
    }

    /// The shape of the small tensor for slices of `sizes`.
    pub(super) fn small(
        &self,
        large: &Shape,
        index: &Shape,
        sizes: &[usize],
    ) -> std::result::Result<Shape, String> {
        self.check(large, index)?;
        if sizes.len() != large.rank() || sizes.iter().zip(large.dims()).any(|(s, d)| s > d) {
            return Err(format!("slices of {sizes:?} of {large}"));
        }
        if self
            .collapsed
            .iter()
            .chain(&self.batch)
            .any(|i| sizes[*i] != 1)
        {
            return Err(format!(
                "slices of {sizes:?} that lose axes {:?} and {:?}",
                self.collapsed, self.batch
            ));
        }
        let kept = self.kept(large.rank());
        let numbering = self.slices(index);
        let rank = kept.len() + numbering.len();
        if rank > crate::graph::MAX_RANK {
            return Err(format!("slices stacked to rank {rank}"));
        }
        if self.window.len() != kept.len() {
            return Err(format!(
                "slices with {} axes for the window axes {:?}",
                kept.len(),
                self.window
            ));
        }
        check_axes(&self.window, rank, "window axis")?;
        let (mut kept, mut numbering) = (kept.into_iter(), numbering.into_iter());
        let dims: Vec<usize> = (0..rank)
            .map(|i| {
                if self.window.contains(&i) {
                    kept.next().map_or(0, |axis| sizes[axis])
                } else {
                    numbering.next().unwrap_or(0)
                }
            })
            .collect();
        Ok(large.with_dims(&dims))
    }

    fn check(&self, large: &Shape, index: &Shape) -> std::result::Result<(), String> {
        if !index.dtype.is_int() {
            return Err(format!("indices of type {}", index.dtype));
        }
        if self.index_axis > index.rank() {
            return Err(format!(
                "index vectors along axis {} of {index}",
                self.index_axis
            ));
        }
        let components = index.dims().get(self.index_axis).copied().unwrap_or(1);
        if components != self.index_map.len() {
            return Err(format!(
                "index vectors of {components} components for the axes {:?}",
                self.index_map
            ));
        }
        check_axes(&self.index_map, large.rank(), "indexed axis")?;
        let lost = [&self.collapsed[..], &self.batch].concat();
        check_axes(&lost, large.rank(), "collapsed or batch axis")?;
        check_axes(&self.index_batch, index.rank(), "batch axis of the index")?;
        let run_along = |(a, i): (&usize, &usize)| large.dims()[*a] == index.dims()[*i];
        if self.batch.len() != self.index_batch.len()
            || self.batch.iter().any(|a| self.index_map.contains(a))
            || self.index_batch.contains(&self.index_axis)
            || !self.batch.iter().zip(&self.index_batch).all(run_along)
        {
            return Err(format!(
                "batch axes {:?} of {large} do not run along axes {:?} of {index}",
                self.batch, self.index_batch
            ));
        }
        Ok(())
    }

    /// The largest start at which a slice of `sizes` lies inside, along the
    /// axis of index vectors and of rank `index.rank()` or less.
    pub(super) fn limits(
        &self,
        b: &Builder,
        large: Value,
        index: Value,
        sizes: &[usize],
    ) -> Result<Value> {
        let last: Vec<f64> = self
            .index_map
            .iter()
            .map(|a| (large.dim(*a) - sizes[*a]) as f64)
            .collect();
        if self.index_axis == index.rank() {
            return b.full_like(index, last[0]);
        }
        let table = b.table(Shape::new(index.dtype(), &[last.len()]), last)?;
        b.broadcast_in_dim(table, index.dims(), &[self.index_axis])
    }

    /// For each slice, whether it lies inside; spread over the small tensor.
    pub(super) fn inside(
        &self,
        b: &Builder,
        large: Value,
        index: Value,
        small: Value,
    ) -> Result<Value> {
        let sizes = self.sizes(&large.shape, &small.shape);
        let limit = self.limits(b, large, index, &sizes)?;
        let low = b.compare(Comparison::Ge, index, b.full_like(index, 0.0)?)?;
        let fits = b.and(low, b.compare(Comparison::Le, index, limit)?)?;
        let fits = if self.index_axis == index.rank() {
            fits
        } else {
            b.reduce(ReduceKind::And, fits, &[self.index_axis])?
        };
        let numbering: Vec<usize> = (0..small.rank())
            .filter(|i| !self.window.contains(i))
            .collect();
        b.broadcast_in_dim(fits, small.dims(), &numbering)
    }
}

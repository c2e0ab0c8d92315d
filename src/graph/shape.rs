use std::fmt;

use super::DType;

/// The largest rank: what a picture batch cut into patches needs.
pub const MAX_RANK: usize = 8;

/// Element type and dimensions of a tensor, small enough to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub dtype: DType,
    rank: u8,
    dims: [usize; MAX_RANK],
}

impl Shape {
    /// # Panics
    /// If there are more than [`MAX_RANK`] dimensions.
    pub fn new(dtype: DType, dims: &[usize]) -> Self {
        assert!(
            dims.len() <= MAX_RANK,
            "rank {} is over {MAX_RANK}",
            dims.len()
        );
        let mut all = [0; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Self {
            dtype,
            rank: dims.len() as u8,
            dims: all,
        }
    }

    /// A tensor of no dimensions.
    pub fn scalar(dtype: DType) -> Self {
        Self::new(dtype, &[])
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the whole tensor.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }

    /// The same dimensions with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..*self }
    }

    /// The same element type with other dimensions.
    pub fn with_dims(&self, dims: &[usize]) -> Self {
        Self::new(self.dtype, dims)
    }

    /// As MLIR writes it: `tensor<8x16xf32>`.
    pub fn mlir(&self) -> String {
        format!("tensor<{self}>")
    }

    /// The dimensions of two operands after NumPy's broadcasting, or `None`
    /// if they do not fit.
    pub fn broadcast_dims(a: &Shape, b: &Shape) -> Option<Vec<usize>> {
        let rank = a.rank().max(b.rank());
        let dim = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(1, |j| s.dims()[j]);
        (0..rank)
            .map(|i| match (dim(a, i), dim(b, i)) {
                (x, y) if x == y => Some(x),
                (1, y) => Some(y),
                (x, 1) => Some(x),
                _ => None,
            })
            .collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in self.dims() {
            write!(f, "{d}x")?;
        }
        write!(f, "{}", self.dtype)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let s = |dims: &[usize]| Shape::new(DType::F32, dims);
        let check = |a: &[usize], b: &[usize], expected: Option<&[usize]>| {
            assert_eq!(Shape::broadcast_dims(&s(a), &s(b)).as_deref(), expected);
        };
        check(&[2, 3], &[3], Some(&[2, 3]));
        check(&[2, 1], &[1, 4], Some(&[2, 4]));
        check(&[], &[5], Some(&[5]));
        check(&[2, 3], &[2], None);
    }

    #[test]
    fn shapes_print_as_mlir() {
        assert_eq!(Shape::new(DType::BF16, &[2, 3]).mlir(), "tensor<2x3xbf16>");
        assert_eq!(Shape::scalar(DType::Pred).mlir(), "tensor<i1>");
    }
}

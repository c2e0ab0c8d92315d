//! A small array of f64, in which references are computed.

#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dims: Vec<usize>,
    /// In row-major order.
    pub data: Vec<f64>,
}

/// Every index of an array of `dims`, in row-major order.
pub fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let dims = dims.to_vec();
    (0..dims.iter().product()).map(move |flat: usize| {
        let mut index = vec![0; dims.len()];
        let mut rest = flat;
        for (place, size) in index.iter_mut().zip(&dims).rev() {
            *place = rest % size;
            rest /= size;
        }
        index
    })
}

impl Array {
    pub fn new(dims: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len());
        Self {
            dims: dims.to_vec(),
            data,
        }
    }

    pub fn scalar(value: f64) -> Self {
        Self::new(&[], vec![value])
    }

    pub fn full(dims: &[usize], value: f64) -> Self {
        Self::from_fn(dims, |_| value)
    }

    pub fn from_fn(dims: &[usize], f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut f = f;
        let data = indices(dims).map(|index| f(&index)).collect();
        Self::new(dims, data)
    }

    fn flat(&self, index: &[usize]) -> usize {
        assert_eq!(index.len(), self.dims.len());
        index
            .iter()
            .zip(&self.dims)
            .fold(0, |flat, (place, size)| flat * size + place)
    }

    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.flat(index)]
    }

    pub fn at_mut(&mut self, index: &[usize]) -> &mut f64 {
        let flat = self.flat(index);
        &mut self.data[flat]
    }

    /// The element, or `outside` where the index does not lie inside.
    pub fn at_or(&self, index: &[i64], outside: f64) -> f64 {
        let inside: Option<Vec<usize>> = index
            .iter()
            .zip(&self.dims)
            .map(|(place, size)| usize::try_from(*place).ok().filter(|p| p < size))
            .collect();
        inside.map_or(outside, |index| self.at(&index))
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(&self.dims, self.data.iter().map(|x| f(*x)).collect())
    }

    /// `f` of two arrays, broadcast by NumPy's rules.
    pub fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let rank = self.dims.len().max(other.dims.len());
        let size = |a: &Self, i: usize| {
            (i + a.dims.len())
                .checked_sub(rank)
                .map_or(1, |j| a.dims[j])
        };
        let dims: Vec<usize> = (0..rank)
            .map(|i| size(self, i).max(size(other, i)))
            .collect();
        let (a, b) = (self.broadcast(&dims), other.broadcast(&dims));
        Self::from_fn(&dims, |i| f(a.at(i), b.at(i)))
    }

    /// Repeated to `dims` by NumPy's rules.
    pub fn broadcast(&self, dims: &[usize]) -> Self {
        let missing = dims.len() - self.dims.len();
        Self::from_fn(dims, |index| {
            let own: Vec<usize> = index[missing..]
                .iter()
                .zip(&self.dims)
                .map(|(place, size)| if *size == 1 { 0 } else { *place })
                .collect();
            self.at(&own)
        })
    }

    /// Result axis `i` is axis `order[i]`.
    pub fn transpose(&self, order: &[usize]) -> Self {
        let dims: Vec<usize> = order.iter().map(|axis| self.dims[*axis]).collect();
        Self::from_fn(&dims, |index| {
            let mut own = vec![0; index.len()];
            for (place, axis) in order.iter().enumerate() {
                own[*axis] = index[place];
            }
            self.at(&own)
        })
    }

    pub fn reshape(&self, dims: &[usize]) -> Self {
        Self::new(dims, self.data.clone())
    }

    /// Folds `axes` away, in row-major order, from `start`.
    pub fn fold(&self, axes: &[usize], start: f64, f: impl Fn(f64, f64) -> f64) -> Self {
        let kept: Vec<usize> = (0..self.dims.len()).filter(|i| !axes.contains(i)).collect();
        let dims: Vec<usize> = kept.iter().map(|i| self.dims[*i]).collect();
        let mut out = Self::full(&dims, start);
        for index in indices(&self.dims) {
            let place: Vec<usize> = kept.iter().map(|i| index[*i]).collect();
            let value = f(out.at(&place), self.at(&index));
            *out.at_mut(&place) = value;
        }
        out
    }

    /// Elements `start..start + size` of each axis.
    pub fn block(&self, start: &[usize], size: &[usize]) -> Self {
        Self::from_fn(size, |index| {
            let own: Vec<usize> = index.iter().zip(start).map(|(i, s)| i + s).collect();
            self.at(&own)
        })
    }
}

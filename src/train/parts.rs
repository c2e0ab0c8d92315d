//! An array on the host, and what each device holds of it.

use std::borrow::Cow;

use anyhow::{Result, ensure};

use crate::graph::{Shape, Sharding};

/// How an array is cut for the devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Of each device's part.
    dims: Vec<usize>,
    /// Parts that differ: 1 where every device holds the whole.
    count: usize,
    /// The array is so many rows, each of which is cut.
    rows: usize,
    /// Bytes of a row's part.
    chunk: usize,
}

impl Parts {
    /// # Errors
    /// If the devices do not divide the dimension that is split.
    pub fn of(shape: Shape, sharding: Option<&Sharding>, devices: usize) -> Result<Self> {
        let mut dims = shape.dims().to_vec();
        let Some(axis) = sharding.and_then(Sharding::split_axis) else {
            return Ok(Self {
                dims,
                count: 1,
                rows: 1,
                chunk: shape.bytes(),
            });
        };
        let fits = axis < dims.len() && devices > 0 && dims[axis].is_multiple_of(devices);
        ensure!(
            fits,
            "{shape} does not split over {devices} devices along axis {axis}"
        );
        let rows = dims[..axis].iter().product();
        dims[axis] /= devices;
        Ok(Self {
            chunk: dims[axis..].iter().product::<usize>() * shape.dtype.bytes(),
            dims,
            count: devices,
            rows,
        })
    }

    /// The dimensions of each device's part.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Whether every device holds the whole.
    pub fn are_whole(&self) -> bool {
        self.count == 1
    }

    /// What device `device` holds of the array `bytes`.
    pub fn cut<'a>(&self, bytes: &'a [u8], device: usize) -> Cow<'a, [u8]> {
        let part = |row: usize| {
            let start = (row * self.count + device) * self.chunk;
            &bytes[start..start + self.chunk]
        };
        match (self.count, self.rows) {
            (1, _) => Cow::Borrowed(bytes),
            (_, 1) => Cow::Borrowed(part(0)),
            _ => Cow::Owned((0..self.rows).flat_map(part).copied().collect()),
        }
    }

    /// The whole array from all devices' parts, or from one where each holds
    /// the whole.
    ///
    /// # Errors
    /// If the parts are not as many or as long as they should be.
    pub fn join(&self, mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>> {
        let sound = parts.len() == self.count
            && parts
                .iter()
                .all(|part| part.len() == self.rows * self.chunk);
        ensure!(sound, "the parts of an array do not make it up");
        if self.count == 1 {
            return Ok(parts.remove(0));
        }
        let rows = (0..self.rows).flat_map(|row| {
            let range = row * self.chunk..(row + 1) * self.chunk;
            parts.iter().map(move |part| &part[range.clone()])
        });
        Ok(rows.flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    fn parts(dims: &[usize], axis: Option<usize>, devices: usize) -> Result<Parts> {
        let sharding = axis.map(|axis| Sharding::split(dims.len(), axis));
        Parts::of(Shape::new(DType::U8, dims), sharding.as_ref(), devices)
    }

    #[test]
    fn arrays_are_cut_along_any_axis_and_joined_again() {
        // [2, 4]: 0 1 2 3 / 4 5 6 7
        let bytes: Vec<u8> = (0..8).collect();
        for (axis, dims, expected) in [
            (0, [1, 4], [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]),
            (1, [2, 2], [vec![0, 1, 4, 5], vec![2, 3, 6, 7]]),
        ] {
            let parts = parts(&[2, 4], Some(axis), 2).unwrap();
            assert_eq!(parts.dims(), dims);
            let cut: Vec<Vec<u8>> = (0..2).map(|d| parts.cut(&bytes, d).into_owned()).collect();
            assert_eq!(cut, expected);
            assert_eq!(parts.join(cut).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_replicated_stays_whole() {
        let parts = parts(&[2, 4], None, 3).unwrap();
        assert!(parts.are_whole());
        let bytes: Vec<u8> = (0..8).collect();
        assert_eq!(parts.cut(&bytes, 2), bytes);
        assert_eq!(parts.join(vec![bytes.clone()]).unwrap(), bytes);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert!(parts(&[2, 4], Some(1), 3).is_err());
        let parts = parts(&[2, 4], Some(1), 2).unwrap();
        assert!(parts.join(vec![vec![0; 4]]).is_err());
        assert!(parts.join(vec![vec![0; 4], vec![0; 3]]).is_err());
    }
}

//! How tensors lie over the devices, in Shardy's terms. The program is
//! written in the global view; these annotations and XLA's partitioner do
//! the rest.

/// Named axes of devices. One axis, `data`, is what pre-training needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    pub axes: Vec<(String, usize)>,
}

impl Mesh {
    /// The name of the axis over which batches are split.
    pub const DATA: &'static str = "data";

    /// A mesh of one axis over `devices` devices.
    pub fn data(devices: usize) -> Self {
        Self {
            axes: vec![(Self::DATA.into(), devices)],
        }
    }

    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.axes.iter().map(|(_, n)| n).product()
    }

    pub(crate) fn mlir(&self) -> String {
        let axes: Vec<_> = self
            .axes
            .iter()
            .map(|(a, n)| format!("\"{a}\"={n}"))
            .collect();
        format!("<[{}]>", axes.join(", "))
    }
}

/// For each dimension, the mesh axis that splits it, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharding(pub Vec<Option<&'static str>>);

impl Sharding {
    /// Every device holds the whole tensor.
    pub fn replicated(rank: usize) -> Self {
        Self(vec![None; rank])
    }

    /// Dimension `axis` is split over `data`.
    pub fn split(rank: usize, axis: usize) -> Self {
        let mut dims = vec![None; rank];
        dims[axis] = Some(Mesh::DATA);
        Self(dims)
    }

    /// As [`Sharding::split`] along the first axis of `dims` that `devices`
    /// divides; replicated where there is none.
    pub fn first_divisible(dims: &[usize], devices: usize) -> Self {
        let divisible = |n: &usize| *n > 0 && n.is_multiple_of(devices);
        match dims.iter().position(divisible) {
            Some(axis) if devices > 1 => Self::split(dims.len(), axis),
            _ => Self::replicated(dims.len()),
        }
    }

    /// The dimension that is split, if one is.
    pub fn split_axis(&self) -> Option<usize> {
        self.0.iter().position(Option::is_some)
    }

    pub fn is_replicated(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub(crate) fn mlir(&self) -> String {
        let dims: Vec<_> = self
            .0
            .iter()
            .map(|axis| axis.map_or("{}".into(), |a| format!("{{\"{a}\"}}")))
            .collect();
        format!("<@mesh, [{}]>", dims.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_axis_that_divides_is_split() {
        let axis = |dims: &[usize], devices| Sharding::first_divisible(dims, devices).split_axis();
        assert_eq!(axis(&[8, 3], 4), Some(0));
        assert_eq!(axis(&[1, 5, 12], 4), Some(2));
        assert_eq!(axis(&[0, 4], 4), Some(1));
        assert_eq!(axis(&[3], 4), None);
        assert_eq!(axis(&[], 4), None);
        assert_eq!(axis(&[8], 1), None);
    }
}

//! Features as points of a plane, for people to look at.
//!
//! Nothing here is random: the same features give the same plane.

mod pca;
mod tsne;

pub use pca::{Pca, pca};
pub use tsne::{Tsne, tsne};

/// Points of `dim` numbers each, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    pub dim: usize,
    pub values: Vec<f64>,
}

impl Points {
    /// From rows of `dim` f32, little-endian.
    pub fn from_f32(dim: usize, bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let values = words.iter().map(|w| f64::from(f32::from_le_bytes(*w)));
        Self {
            dim,
            values: values.collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.dim)
    }
}

/// Summed in lanes, which a processor adds at once.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + rest
}

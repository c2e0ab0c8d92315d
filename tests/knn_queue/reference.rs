//! The monitor in plain f64.

use crate::{Batch, DIM, ROWS};
use xla_moco::programs::knn_queue::Vote;

/// The queue in plain Rust, in f64: rows in the order of their places.
#[derive(Default)]
pub struct Reference {
    pub rows: Vec<(Vec<f64>, i32, u32)>,
    pub pointer: usize,
}

impl Reference {
    pub fn samples(batch: &Batch) -> Vec<(Vec<f64>, i32, u32)> {
        let unit = |x: &[f32]| -> Vec<f64> {
            let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            x.iter().map(|v| f64::from(*v) / norm).collect()
        };
        let features = batch.features.chunks_exact(DIM).map(unit);
        let rest = batch.labels.iter().zip(&batch.ids);
        features
            .zip(rest)
            .map(|(x, (l, id))| (x, *l, *id))
            .collect()
    }

    pub fn top1(&self, batch: &Batch, vote: Vote) -> f64 {
        let (mut right, mut counted) = (0, 0);
        for (x, label, id) in Self::samples(batch) {
            if label < 0 || self.rows.is_empty() {
                continue;
            }
            counted += 1;
            let mut near: Vec<(f64, i32)> = self
                .rows
                .iter()
                .filter(|row| row.2 != id)
                .map(|row| (row.0.iter().zip(&x).map(|(a, b)| a * b).sum(), row.1))
                .collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut votes = vec![0.0; vote.classes];
            for (cosine, class) in near.into_iter().take(vote.k) {
                if class >= 0 {
                    votes[class as usize] += (cosine / vote.temperature).exp();
                }
            }
            let most = votes.iter().copied().fold(0.0, f64::max);
            right += usize::from(most > 0.0 && votes[label as usize] == most);
        }
        100.0 * right as f64 / counted as f64
    }

    pub fn enqueue(&mut self, batch: &Batch) {
        for sample in Self::samples(batch) {
            if self.rows.len() <= self.pointer {
                self.rows.push(sample);
            } else {
                self.rows[self.pointer] = sample;
            }
            self.pointer = (self.pointer + 1) % ROWS;
        }
    }
}

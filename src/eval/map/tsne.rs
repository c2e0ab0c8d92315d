//! t-SNE (van der Maaten and Hinton 2008), exact: each point's neighbours are
//! kept as near as may be, distances between groups mean little.
//!
//! With p the similarities of the points and y their places,
//!
//! ```text
//! p(j|i) ~ exp(-|x_i - x_j|^2 b_i), b_i such that its entropy is ln(perplexity)
//! p_ij = (p(j|i) + p(i|j)) / 2n        q_ij ~ 1 / (1 + |y_i - y_j|^2)
//! C = KL(p | q)         dC/dy_i = 4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2)
//! ```
//!
//! The start is the plane of the principal components, which keeps what is large
//! in its place and makes the result repeatable (Kobak and Berens 2019).

use super::pca::pca;
use super::{Points, dot};

/// Similarities are exaggerated in the first so many iterations, by so much.
const EXAGGERATED: usize = 250;
const EXAGGERATION: f64 = 12.0;
const ITERATIONS: usize = 750;

/// Places in the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Tsne {
    pub points: Vec<[f64; 2]>,
    /// About so many neighbours of each point are kept near.
    pub perplexity: f64,
    /// What is left of the divergence, in nats.
    pub divergence: f64,
}

/// None for under five points, or points that are all the same. Takes time and
/// memory in the square of their number: a second or two for a thousand.
pub fn tsne(points: &Points) -> Option<Tsne> {
    let n = points.len();
    let start = pca(points);
    let spread = (start.points.iter().map(|p| p[0] * p[0]).sum::<f64>() / n as f64).sqrt();
    if n < 5 || spread == 0.0 {
        return None;
    }
    let perplexity = f64::min(30.0, (n as f64 - 1.0) / 3.0);
    let p = similarities(points, perplexity);
    let mut y: Vec<[f64; 2]> = start
        .points
        .iter()
        .map(|p| p.map(|x| 1e-4 * x / spread))
        .collect();
    // Belkina et al. 2019.
    let rate = (n as f64 / EXAGGERATION / 4.0).max(50.0);
    let mut speed = vec![[0.0; 2]; n];
    let mut gains = vec![[1.0f64; 2]; n];
    for iteration in 0..ITERATIONS {
        let early = iteration < EXAGGERATED;
        let (factor, momentum) = if early {
            (EXAGGERATION, 0.5)
        } else {
            (1.0, 0.8)
        };
        let gradient = gradient(&p, &y, factor);
        for i in 0..n {
            for axis in 0..2 {
                let (slope, v) = (gradient[i][axis], &mut speed[i][axis]);
                let gain = &mut gains[i][axis];
                *gain = if (slope > 0.0) == (*v > 0.0) {
                    *gain * 0.8
                } else {
                    *gain + 0.2
                };
                *gain = gain.max(0.01);
                *v = momentum * *v - rate * *gain * slope;
                y[i][axis] += *v;
            }
        }
    }
    Some(Tsne {
        divergence: divergence(&p, &y),
        points: y,
        perplexity,
    })
}

/// p, [n, n], symmetric, which sums to 1.
fn similarities(points: &Points, perplexity: f64) -> Vec<f64> {
    let n = points.len();
    let rows: Vec<&[f64]> = points.rows().collect();
    let mut p = vec![0.0; n * n];
    for i in 0..n {
        let squares = rows.iter().map(|row| {
            let apart: Vec<f64> = row.iter().zip(rows[i]).map(|(a, b)| a - b).collect();
            dot(&apart, &apart)
        });
        let squares: Vec<f64> = squares.collect();
        p[i * n..][..n].copy_from_slice(&conditional(&squares, i, perplexity.ln()));
    }
    for i in 0..n {
        for j in 0..i {
            let both = (p[i * n + j] + p[j * n + i]) / (2 * n) as f64;
            (p[i * n + j], p[j * n + i]) = (both, both);
        }
    }
    p
}

/// p(j|i) of all j, with the entropy wished for, from squared distances.
fn conditional(squares: &[f64], i: usize, entropy: f64) -> Vec<f64> {
    let others = || squares.iter().enumerate().filter(move |(j, _)| *j != i);
    let nearest = others().map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
    let mean = others().map(|(_, d)| d - nearest).sum::<f64>() / (squares.len() - 1) as f64;
    let mut p = vec![0.0; squares.len()];
    // Where all others are equally far, every b gives the same.
    let mut b = 1.0 / mean.max(1e-300);
    let (mut low, mut high) = (0.0, f64::INFINITY);
    for _ in 0..100 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (j, d) in others() {
            let further = d - nearest;
            p[j] = (-further * b).exp();
            sum += p[j];
            weighted += p[j] * further;
        }
        p.iter_mut().for_each(|x| *x /= sum);
        let off = sum.ln() + b * weighted / sum - entropy;
        if off.abs() < 1e-7 {
            break;
        }
        // A larger b has less entropy.
        if off > 0.0 {
            low = b
        } else {
            high = b
        }
        b = if high.is_finite() {
            (low + high) / 2.0
        } else {
            2.0 * b
        };
        if !b.is_finite() {
            break;
        }
    }
    p
}

/// dC/dy with p times `factor`.
fn gradient(p: &[f64], y: &[[f64; 2]], factor: f64) -> Vec<[f64; 2]> {
    // With w = 1 / (1 + |y_i - y_j|^2), q is w over the sum of all of them, which
    // is known after one pass over the pairs: what pulls and what pushes apart.
    let mut sum = 0.0;
    let forces: Vec<[f64; 4]> = y
        .iter()
        .zip(p.chunks_exact(y.len()))
        .map(|(a, row)| {
            let [mut pull_x, mut pull_y, mut push_x, mut push_y] = [0.0; 4];
            for (b, p) in y.iter().zip(row) {
                let [dx, dy] = [a[0] - b[0], a[1] - b[1]];
                let w = 1.0 / (1.0 + dx * dx + dy * dy);
                sum += w;
                pull_x += p * w * dx;
                pull_y += p * w * dy;
                push_x += w * w * dx;
                push_y += w * w * dy;
            }
            [pull_x, pull_y, push_x, push_y]
        })
        .collect();
    // Without each point's w with itself, 1.
    sum -= y.len() as f64;
    let of = |[px, py, qx, qy]: [f64; 4]| {
        [(px, qx), (py, qy)].map(|(pull, push)| 4.0 * (factor * pull - push / sum))
    };
    forces.into_iter().map(of).collect()
}

/// C.
fn divergence(p: &[f64], y: &[[f64; 2]]) -> f64 {
    let n = y.len();
    let near = |i: usize, j: usize| {
        let [dx, dy] = [y[i][0] - y[j][0], y[i][1] - y[j][1]];
        1.0 / (1.0 + dx * dx + dy * dy)
    };
    let pairs = || (0..n).flat_map(|i| (0..n).filter(move |j| *j != i).map(move |j| (i, j)));
    let sum: f64 = pairs().map(|(i, j)| near(i, j)).sum();
    let of = |(i, j)| match p[i * n + j] {
        p if p > 0.0 => p * (p * sum / near(i, j)).ln(),
        _ => 0.0,
    };
    pairs().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn draw(n: usize, dim: usize, mean: impl Fn(usize) -> f64) -> Points {
        let mut stream = Stream::new(4, Purpose::Test, (0, 0));
        let values = (0..n * dim).map(|at| mean(at / dim) + stream.normal());
        Points {
            dim,
            values: values.collect(),
        }
    }

    #[test]
    fn each_points_neighbours_have_the_perplexity() {
        let points = draw(40, 5, |_| 0.0);
        let rows: Vec<&[f64]> = points.rows().collect();
        let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
        for i in 0..40 {
            let squares: Vec<f64> = rows.iter().map(|row| square(row, rows[i])).collect();
            let p = conditional(&squares, i, 7f64.ln());
            let entropy: f64 = -p
                .iter()
                .filter(|p| **p > 0.0)
                .map(|p| p * p.ln())
                .sum::<f64>();
            assert!((entropy.exp() - 7.0).abs() < 1e-4, "{i}: {}", entropy.exp());
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p[i] == 0.0);
        }
        let p = similarities(&points, 7.0);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    /// Against central differences of the divergence.
    #[test]
    fn the_gradient_is_that_of_the_divergence() {
        let p = similarities(&draw(12, 4, |_| 0.0), 3.0);
        let y: Vec<[f64; 2]> = draw(12, 2, |_| 0.0).rows().map(|r| [r[0], r[1]]).collect();
        let found = gradient(&p, &y, 1.0);
        for i in 0..12 {
            for axis in 0..2 {
                let at = |h: f64| {
                    let mut moved = y.clone();
                    moved[i][axis] += h;
                    divergence(&p, &moved)
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((found[i][axis] - expected).abs() < 1e-8, "{i} {axis}");
            }
        }
    }

    /// Three groups in ten dimensions: in the plane each point's nearest is of
    /// its own group.
    #[test]
    fn groups_stay_together() {
        let points = draw(60, 10, |point| (point % 3) as f64 * 6.0);
        let found = tsne(&points).unwrap();
        assert_eq!(found.perplexity, 59.0 / 3.0);
        let apart = |i: usize, j: usize| {
            let [a, b] = [found.points[i], found.points[j]];
            (a[0] - b[0]).hypot(a[1] - b[1])
        };
        for i in 0..60 {
            let others = (0..60).filter(|j| *j != i);
            let nearest = others.min_by(|a, b| apart(i, *a).total_cmp(&apart(i, *b)));
            assert_eq!(nearest.unwrap() % 3, i % 3, "{i}");
        }
        assert_eq!(tsne(&points), Some(found));
    }

    #[test]
    fn few_or_equal_points_have_no_map() {
        assert_eq!(tsne(&draw(4, 3, |_| 0.0)), None);
        let same = Points {
            dim: 2,
            values: vec![0.3; 20],
        };
        assert_eq!(tsne(&same), None);
        // Some that are the same, among others.
        let mut points = draw(30, 3, |_| 0.0);
        points.values.copy_within(..30, 30);
        let found = tsne(&points).unwrap();
        assert!(found.points.iter().flatten().all(|x| x.is_finite()));
    }
}

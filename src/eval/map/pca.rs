//! The two directions in which points vary most.

use super::{Points, dot};

/// Directions that are iterated together: the more beside the two wished for,
/// the faster these are found.
const TOGETHER: usize = 8;
/// The error of a direction falls by the ratio of the ninth variance to its own
/// in each.
const ITERATIONS: usize = 100;

/// Points projected on the first two principal components.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    pub points: Vec<[f64; 2]>,
    /// Share of the whole variance along each, 0 to 1; 0 where nothing varies.
    pub share: [f64; 2],
}

/// Principal component analysis by orthogonal iteration (Golub and Van Loan,
/// Sec. 8.2.4) on the covariance, which is never formed.
pub fn pca(points: &Points) -> Pca {
    let centred = centred(points);
    let dim = points.dim;
    let wanted = TOGETHER.min(dim);
    let whole: f64 = centred.values.iter().map(|x| x * x).sum();
    // What the mean's rounding leaves of equal points is no variance.
    if whole <= 1e-20 * dot(&points.values, &points.values) {
        return Pca {
            points: vec![[0.0; 2]; points.len()],
            share: [0.0; 2],
        };
    }
    // A start that no data are at right angles to but by design.
    let start = |k: usize| (0..dim).map(move |i| ((i * (k + 1) + k) as f64 * 0.73).cos() + 0.1);
    let mut basis: Vec<Vec<f64>> = (0..wanted).map(|k| start(k).collect()).collect();
    orthonormalise(&mut basis);
    for _ in 0..ITERATIONS {
        basis = basis.iter().map(|v| covaried(&centred, v)).collect();
        orthonormalise(&mut basis);
    }
    // Within what they span, the directions by themselves.
    let images: Vec<Vec<f64>> = basis.iter().map(|v| covaried(&centred, v)).collect();
    let small: Vec<Vec<f64>> = basis
        .iter()
        .map(|v| images.iter().map(|image| dot(v, image)).collect())
        .collect();
    let mut found = eigen(small);
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let axis = |k: usize| match found.get(k) {
        Some((value, weights)) => (value / whole, combined(&basis, weights)),
        None => (0.0, vec![0.0; dim]),
    };
    let [(first, x), (second, y)] = [axis(0), axis(1)];
    Pca {
        points: centred
            .rows()
            .map(|row| [dot(row, &x), dot(row, &y)])
            .collect(),
        share: [first, second].map(|share| share.clamp(0.0, 1.0)),
    }
}

fn centred(points: &Points) -> Points {
    let n = points.len().max(1) as f64;
    let mut mean = vec![0.0; points.dim];
    for row in points.rows() {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += x / n;
        }
    }
    let less = |row: &[f64]| {
        row.iter()
            .zip(&mean)
            .map(|(x, m)| x - m)
            .collect::<Vec<_>>()
    };
    Points {
        dim: points.dim,
        values: points.rows().flat_map(less).collect(),
    }
}

/// The covariance, times the number of points, times a vector.
fn covaried(centred: &Points, v: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; centred.dim];
    for row in centred.rows() {
        let along = dot(row, v);
        for (sum, x) in out.iter_mut().zip(row) {
            *sum += along * x;
        }
    }
    out
}

/// Gram and Schmidt's way, twice; what has nothing of its own becomes 0.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for k in 0..basis.len() {
        let (earlier, rest) = basis.split_at_mut(k);
        let v = &mut rest[0];
        let before = dot(v, v).sqrt();
        for _ in 0..2 {
            for u in earlier.iter() {
                let along = dot(u, v);
                for (x, y) in v.iter_mut().zip(u) {
                    *x -= along * y;
                }
            }
        }
        let norm = dot(v, v).sqrt();
        let scale = if norm > 1e-12 * before {
            norm
        } else {
            f64::INFINITY
        };
        for x in v.iter_mut() {
            *x /= scale;
        }
    }
}

/// A combination of the basis, turned so that its largest part is above 0.
fn combined(basis: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; basis[0].len()];
    for (v, weight) in basis.iter().zip(weights) {
        for (sum, x) in out.iter_mut().zip(v) {
            *sum += weight * x;
        }
    }
    let largest = out
        .iter()
        .copied()
        .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    if largest < 0.0 {
        out.iter_mut().for_each(|x| *x = -*x);
    }
    out
}

/// Eigenvalues and eigenvectors of a small symmetric matrix, by Jacobi's
/// rotations (Golub and Van Loan, Sec. 8.5).
fn eigen(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = a.len();
    // Its rows become the vectors.
    let mut vectors: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for _ in 0..30 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for row in a.iter_mut() {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                rotate(&mut a, p, q, c, s);
                rotate(&mut vectors, p, q, c, s);
            }
        }
    }
    (0..n).map(|i| a[i][i]).zip(vectors).collect()
}

fn rotate(rows: &mut [Vec<f64>], p: usize, q: usize, c: f64, s: f64) {
    let (before, after) = rows.split_at_mut(q);
    for (x, y) in before[p].iter_mut().zip(&mut after[0]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points at +-a, +-b and +-c along three axes, turned and moved: the shares
    /// are those of the squares, whatever the turn.
    #[test]
    fn the_longest_axes_of_a_turned_box_are_found() {
        let axes = [
            [2.0 / 3.0, -2.0 / 3.0, 1.0 / 3.0],
            [1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0],
            [2.0 / 3.0, 1.0 / 3.0, -2.0 / 3.0],
        ];
        let lengths = [1.0, 5.0, 3.0];
        let mut values = Vec::new();
        for (axis, length) in axes.iter().zip(lengths) {
            for sign in [-1.0, 1.0] {
                values.extend(axis.map(|x| 7.0 + sign * length * x));
            }
        }
        let found = pca(&Points { dim: 3, values });
        for (share, expected) in found.share.iter().zip([25.0 / 35.0, 9.0 / 35.0]) {
            assert!((share - expected).abs() < 1e-12, "{share}");
        }
        // Up to its sign each point lies at its length along its axis.
        let expected = [[0.0, 0.0], [5.0, 0.0], [0.0, 3.0]];
        for (pair, expected) in found.points.chunks(2).zip(expected) {
            for point in pair {
                for (x, wanted) in point.iter().zip(expected) {
                    assert!((x.abs() - wanted).abs() < 1e-9, "{:?}", found.points);
                }
            }
        }
    }

    #[test]
    fn equal_points_and_few_dimensions_are_no_trouble() {
        let same = pca(&Points {
            dim: 4,
            values: vec![0.5; 12],
        });
        assert_eq!((same.points, same.share), (vec![[0.0; 2]; 3], [0.0; 2]));
        let line = pca(&Points {
            dim: 1,
            values: vec![-1.0, 0.0, 1.0],
        });
        assert_eq!(line.share, [1.0, 0.0]);
        assert!((line.points[2][0].abs() - 1.0).abs() < 1e-12);
    }
}

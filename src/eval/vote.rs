//! Votes of neighbours (Wu et al. 2018, Sec. 3.4), in plain arithmetic.

use serde::Serialize;

/// The nearest neighbours of each query: `k` of them, nearest first.
#[derive(Clone, Debug)]
pub struct Neighbours {
    pub k: usize,
    /// Cosines of all queries, `k` a query.
    pub cosines: Vec<f32>,
    /// The neighbours' classes, in the same order.
    pub classes: Vec<u32>,
    /// The queries' own classes.
    pub actual: Vec<u32>,
}

/// How well one class was recognised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassResult {
    pub name: String,
    pub queries: usize,
    pub right: usize,
    /// Percent; none without queries.
    pub top1: Option<f64>,
}

/// So many queries of one class were taken for another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    pub actual: String,
    pub predicted: String,
    pub queries: usize,
}

/// What the votes came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Percent of the queries; NaN if there are none.
    pub top1: f64,
    pub per_class: Vec<ClassResult>,
    /// Most frequent first.
    pub confusions: Vec<Confusion>,
}

/// The class that most of the votes name, the first of equal ones. A
/// neighbour votes for its class with weight exp(cosine / temperature).
///
/// # Panics
/// If a class is not below `classes`, or `classes` is 0.
pub fn predict(cosines: &[f32], of: &[u32], temperature: f64, classes: usize) -> u32 {
    // A factor common to all votes decides nothing; with it no temperature
    // overflows.
    let nearest = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut votes = vec![0.0; classes];
    for (cosine, class) in cosines.iter().zip(of) {
        votes[*class as usize] += (f64::from(cosine - nearest) / temperature).exp();
    }
    let mut best = 0;
    for class in 1..classes {
        if votes[class] > votes[best] {
            best = class;
        }
    }
    best as u32
}

impl Neighbours {
    /// Lets the `k` nearest vote; `names` are the classes.
    ///
    /// # Panics
    /// If `k` is 0 or above the number of neighbours.
    pub fn tally(&self, k: usize, temperature: f64, names: &[String]) -> Tally {
        assert!((1..=self.k).contains(&k), "{k} of {} neighbours", self.k);
        let near = self.cosines.chunks_exact(self.k);
        let near = near.zip(self.classes.chunks_exact(self.k));
        let vote = |(cosines, classes): (&[f32], &[u32])| {
            predict(&cosines[..k], &classes[..k], temperature, names.len())
        };
        Tally::of(self.actual.iter().copied().zip(near.map(vote)), names)
    }
}

impl Tally {
    /// Counts pairs of actual and predicted class; `names` are the classes.
    ///
    /// # Panics
    /// If a class has no name.
    pub fn of(pairs: impl Iterator<Item = (u32, u32)>, names: &[String]) -> Self {
        let n = names.len();
        // [actual * n + predicted]
        let mut counts = vec![0; n * n];
        for (actual, predicted) in pairs {
            assert!((predicted as usize) < n, "class {predicted} of {n}");
            counts[actual as usize * n + predicted as usize] += 1;
        }
        let percent = |right: usize, of: usize| 100.0 * right as f64 / of as f64;
        let per_class: Vec<ClassResult> = names
            .iter()
            .enumerate()
            .map(|(class, name)| {
                let row = &counts[class * n..][..n];
                let (right, queries) = (row[class], row.iter().sum());
                ClassResult {
                    name: name.clone(),
                    queries,
                    right,
                    top1: (queries > 0).then(|| percent(right, queries)),
                }
            })
            .collect();
        let mut confusions: Vec<Confusion> = counts
            .iter()
            .enumerate()
            .filter(|(at, queries)| **queries > 0 && at / n != at % n)
            .map(|(at, queries)| Confusion {
                actual: names[at / n].clone(),
                predicted: names[at % n].clone(),
                queries: *queries,
            })
            .collect();
        // Stable: equal ones stay in the order of the classes.
        confusions.sort_by_key(|c| std::cmp::Reverse(c.queries));
        let right = per_class.iter().map(|c| c.right).sum();
        let queries = per_class.iter().map(|c| c.queries).sum();
        Self {
            top1: percent(right, queries),
            per_class,
            confusions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_neighbours_outweigh_many_far_ones() {
        let check = |cosines: &[f32], of: &[u32], temperature, expected| {
            assert_eq!(predict(cosines, of, temperature, 3), expected);
        };
        // exp(.2 / .07) = 17.4 votes against two; at T 1, 1.2 against two.
        check(&[0.9, 0.7, 0.7], &[2, 1, 1], 0.07, 2);
        check(&[0.9, 0.7, 0.7], &[2, 1, 1], 1.0, 1);
        check(&[0.5, 0.5], &[2, 0], 0.07, 0);
        // exp(1 / .001) is no number.
        check(&[1.0, 0.999], &[1, 2], 0.001, 1);
    }

    #[test]
    fn counts_by_class_and_by_confusion() {
        let neighbours = Neighbours {
            k: 2,
            cosines: [0.9, 0.8].repeat(5),
            classes: vec![0, 1, 1, 0, 1, 0, 1, 1, 0, 0],
            actual: vec![0, 0, 0, 1, 1],
        };
        let names = ["a", "b", "c"].map(String::from);
        let one = neighbours.tally(1, 0.07, &names);
        assert_eq!(one.top1, 40.0);
        let right: Vec<_> = one.per_class.iter().map(|c| (c.right, c.queries)).collect();
        assert_eq!(right, [(1, 3), (1, 2), (0, 0)]);
        assert_eq!(one.per_class[2].top1, None);
        let of = |c: &Confusion| (c.actual.clone(), c.predicted.clone(), c.queries);
        let found: Vec<_> = one.confusions.iter().map(of).collect();
        let pair = |a: &str, b: &str, n| (a.to_owned(), b.to_owned(), n);
        assert_eq!(found, [pair("a", "b", 2), pair("b", "a", 1)]);
        // The same lists serve every k and temperature: T 1000 gives both
        // neighbours of queries 0 to 2 nearly equal votes, the nearer more.
        assert_eq!(neighbours.tally(2, 1000.0, &names).top1, 40.0);
    }
}

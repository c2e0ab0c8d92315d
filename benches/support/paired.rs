//! Comparing two things whose times drift together: pairs in both orders, and
//! the ratio of the medians with its interval.

use anyhow::{Result, ensure};
use xla_moco::rng::philox;

use super::Time;

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 10_000;

/// Times of two things; element i of both was measured in pair i.
#[derive(Default)]
pub struct Pairs {
    first: Vec<Time>,
    second: Vec<Time>,
}

/// How `first` compares to `second`.
pub struct Comparison {
    /// Medians in seconds.
    pub first: f64,
    pub second: f64,
    /// `first / second`.
    pub ratio: f64,
    /// 95% of the bootstrap's ratios are in here.
    pub interval: (f64, f64),
}

impl Pairs {
    /// Runs `count` pairs; which one comes first alternates.
    pub fn measure(
        count: usize,
        mut first: impl FnMut() -> Result<Time>,
        mut second: impl FnMut() -> Result<Time>,
    ) -> Result<Pairs> {
        ensure!(count > 0, "at least one pair is needed");
        let mut pairs = Pairs::default();
        for pair in 0..count {
            let (a, b) = if pair % 2 == 0 {
                let a = first()?;
                (a, second()?)
            } else {
                let b = second()?;
                (first()?, b)
            };
            pairs.first.push(a);
            pairs.second.push(b);
        }
        Ok(pairs)
    }

    /// The ratio of medians of one kind of time; its interval is the percentile
    /// bootstrap's, over whole pairs.
    pub fn compare(&self, kind: impl Fn(&Time) -> f64) -> Comparison {
        let n = self.first.len();
        let first: Vec<f64> = self.first.iter().map(&kind).collect();
        let second: Vec<f64> = self.second.iter().map(&kind).collect();
        let mut ratios: Vec<f64> = (0..RESAMPLES)
            .map(|resample| {
                let drawn: Vec<usize> = (0..n)
                    .map(|i| philox([resample, i as u32, 0, 0], [0, 0])[0] as usize % n)
                    .collect();
                let of = |times: &[f64]| median(drawn.iter().map(|&i| times[i]).collect());
                of(&first) / of(&second)
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let quantile = |q: f64| ratios[(q * (ratios.len() - 1) as f64).round() as usize];
        let (first, second) = (median(first), median(second));
        Comparison {
            first,
            second,
            ratio: first / second,
            interval: (quantile(0.025), quantile(0.975)),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

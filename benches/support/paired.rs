//! Comparing two things whose times drift together: pairs in both orders, and
//! the ratio of the medians with its interval.

use std::time::Duration;

use anyhow::{Result, ensure};
use xla_moco::rng::philox;

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 10_000;

/// Times of two things in seconds; element i of both was measured in pair i.
pub struct Pairs {
    first: Vec<f64>,
    second: Vec<f64>,
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
        mut first: impl FnMut() -> Result<Duration>,
        mut second: impl FnMut() -> Result<Duration>,
    ) -> Result<Pairs> {
        ensure!(count > 0, "at least one pair is needed");
        let mut pairs = Pairs {
            first: Vec::new(),
            second: Vec::new(),
        };
        for pair in 0..count {
            let (a, b) = if pair % 2 == 0 {
                let a = first()?;
                (a, second()?)
            } else {
                let b = second()?;
                (first()?, b)
            };
            pairs.first.push(a.as_secs_f64());
            pairs.second.push(b.as_secs_f64());
        }
        Ok(pairs)
    }

    /// The ratio of medians; its interval is the percentile bootstrap's, over
    /// whole pairs.
    pub fn compare(&self) -> Comparison {
        let n = self.first.len();
        let mut ratios: Vec<f64> = (0..RESAMPLES)
            .map(|resample| {
                let drawn: Vec<usize> = (0..n)
                    .map(|i| philox([resample, i as u32, 0, 0], [0, 0])[0] as usize % n)
                    .collect();
                let of = |times: &[f64]| median(drawn.iter().map(|&i| times[i]).collect());
                of(&self.first) / of(&self.second)
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let quantile = |q: f64| ratios[(q * (ratios.len() - 1) as f64).round() as usize];
        let (first, second) = (median(self.first.clone()), median(self.second.clone()));
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

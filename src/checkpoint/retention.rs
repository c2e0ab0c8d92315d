//! Which checkpoints stay.

use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};

use anyhow::Result;

use super::reader::list;
use super::run_dir::RunDir;
use super::writer::delete;

/// A checkpoint stays if any of the three says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// The newest so many.
    pub keep_last: NonZeroUsize,
    /// Every one whose step is a multiple of this.
    pub keep_every: Option<NonZeroU64>,
    /// Steps that an event still needs.
    pub pinned: BTreeSet<u64>,
}

impl Retention {
    /// Deletes what need not stay, once the checkpoint of step `newest` is
    /// saved; returns the steps deleted. Each deletion is all or nothing under
    /// a crash.
    pub fn apply(&self, run: &RunDir, newest: u64) -> Result<Vec<u64>> {
        let steps: Vec<u64> = list(run)?.into_iter().map(|(step, _)| step).collect();
        let doomed = self.doomed(&steps, newest);
        for &step in &doomed {
            delete(run, step)?;
        }
        Ok(doomed)
    }

    /// `steps` ascending. Later ones than `newest` are of a run that was
    /// resumed before them, perhaps because they are damaged: they do not
    /// count as the last, else they would push the good ones out.
    fn doomed(&self, steps: &[u64], newest: u64) -> Vec<u64> {
        let past = &steps[..steps.partition_point(|&s| s <= newest)];
        let older = past.len().saturating_sub(self.keep_last.get());
        let stays = |s: &u64| {
            self.pinned.contains(s) || self.keep_every.is_some_and(|every| *s % every == 0)
        };
        past[..older]
            .iter()
            .filter(|s| !stays(s))
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let check = |last, every, pinned: &[u64], newest, doomed: &[u64]| {
            let retention = Retention {
                keep_last: NonZeroUsize::new(last).unwrap(),
                keep_every: NonZeroU64::new(every),
                pinned: pinned.iter().copied().collect(),
            };
            let steps = [0, 10, 20, 30, 40, 50];
            assert_eq!(
                retention.doomed(&steps, newest),
                doomed,
                "{retention:?} {newest}"
            );
        };
        check(1, 0, &[], 50, &[0, 10, 20, 30, 40]);
        check(2, 0, &[], 50, &[0, 10, 20, 30]);
        check(6, 0, &[], 50, &[]);
        check(9, 0, &[], 50, &[]);
        check(1, 20, &[], 50, &[10, 30]);
        check(2, 30, &[10], 50, &[20]);
        check(1, 0, &[50, 7], 50, &[0, 10, 20, 30, 40]);
        // Resumed at 20: 40 and 50 neither count nor are deleted.
        check(1, 0, &[], 30, &[0, 10, 20]);
        check(2, 0, &[0], 30, &[10]);
    }
}

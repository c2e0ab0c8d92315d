//! Which pictures a step sees.

use anyhow::Result;

use crate::bad_input;
use crate::rng::{Purpose, Stream};

/// Most epochs a run can have: their number shares 32 bits with the view in
/// the generator's counter.
const MAX_EPOCHS: u64 = 1 << 24;

/// Gives the global batch of any step: each epoch is a permutation of the
/// whole set, a pure function of (seed, epoch); the last partial batch is
/// dropped. Going to another epoch costs O(n) time, so resuming does too.
pub struct Sampler {
    len: u32,
    batch: u32,
    seed: u64,
    /// The epoch whose order is held, and that order.
    order: Option<(u32, Vec<u32>)>,
}

impl Sampler {
    /// A sampler of `batch` out of `len` pictures.
    ///
    /// # Errors
    /// [`bad_input!`] if `batch` is 0 or more than `len`.
    pub fn new(len: usize, batch: usize, seed: u64) -> Result<Self> {
        let (Ok(len32), Ok(batch32)) = (u32::try_from(len), u32::try_from(batch)) else {
            return Err(bad_input!(
                "{len} pictures in batches of {batch} do not fit 32 bits"
            ));
        };
        if batch == 0 || batch > len {
            return Err(bad_input!(
                "the batch is {batch} pictures, but the data has {len}: expected a batch of 1 \
                 to {len}; set a smaller batch or give more pictures"
            ));
        }
        Ok(Self {
            len: len32,
            batch: batch32,
            seed,
            order: None,
        })
    }

    /// Steps in an epoch, at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        u64::from(self.len / self.batch)
    }

    /// The epoch of a step (steps count from 0) and the ids of its batch.
    ///
    /// # Errors
    /// [`bad_input!`] past 2^24 epochs.
    pub fn batch(&mut self, step: u64) -> Result<(u32, Vec<u32>)> {
        let per_epoch = self.steps_per_epoch();
        let epoch = step / per_epoch;
        if epoch >= MAX_EPOCHS {
            return Err(bad_input!(
                "step {step} is in epoch {epoch}; at most {MAX_EPOCHS} epochs are supported"
            ));
        }
        let epoch = epoch as u32;
        let start = (step % per_epoch) as usize * self.batch as usize;
        let order = match self.order.take() {
            Some((held, order)) if held == epoch => order,
            _ => permutation(self.len, self.seed, epoch),
        };
        let ids = order[start..start + self.batch as usize].to_vec();
        self.order = Some((epoch, order));
        Ok((epoch, ids))
    }
}

/// Fisher and Yates's shuffle of 0..len.
fn permutation(len: u32, seed: u64, epoch: u32) -> Vec<u32> {
    let mut stream = Stream::new(seed, Purpose::Shuffle, (epoch, 0));
    let mut order: Vec<u32> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last as usize, stream.below(last + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_permutation_without_its_partial_batch() {
        let mut sampler = Sampler::new(103, 10, 7).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 10);
        let mut seen = Vec::new();
        for step in 0..10 {
            let (epoch, ids) = sampler.batch(step).unwrap();
            assert_eq!((epoch, ids.len()), (0, 10));
            seen.extend(ids);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        assert!(seen.iter().all(|&id| id < 103));
        assert_eq!(sampler.batch(10).unwrap().0, 1);
    }

    #[test]
    fn any_step_can_be_asked_first() {
        let all: Vec<_> = {
            let mut sampler = Sampler::new(17, 5, 3).unwrap();
            (0..12).map(|step| sampler.batch(step).unwrap()).collect()
        };
        for step in [11, 4, 0, 7] {
            let mut fresh = Sampler::new(17, 5, 3).unwrap();
            assert_eq!(fresh.batch(step).unwrap(), all[step as usize]);
        }
        assert_ne!(all[0].1, all[3].1, "epochs have orders of their own");
        let mut other = Sampler::new(17, 5, 4).unwrap();
        assert_ne!(other.batch(0).unwrap(), all[0]);
    }

    /// Each picture is as likely in each place.
    #[test]
    fn the_shuffle_is_uniform() {
        let mut first = [0u32; 5];
        for epoch in 0..5000 {
            first[permutation(5, 1, epoch)[0] as usize] += 1;
        }
        assert!(first.iter().all(|&n| (880..1120).contains(&n)), "{first:?}");
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused() {
        for batch in [0, 11] {
            let error = Sampler::new(10, batch, 0).err().unwrap().to_string();
            assert!(error.contains("the data has 10"), "{error}");
        }
        let mut sampler = Sampler::new(1, 1, 0).unwrap();
        assert!(sampler.batch(u64::MAX).is_err());
    }
}

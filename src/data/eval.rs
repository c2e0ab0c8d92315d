//! Every picture once, without augmentation: for features and evaluation.

use std::sync::Arc;

use anyhow::Result;

use super::corrupt::{Corrupt, CorruptLog};
use super::dataset::Dataset;
use super::pool::Pool;
use super::resize::Scaler;
use crate::bad_input;
use crate::rng::{Purpose, Stream};

/// Share of corrupt pictures that an evaluation bears.
const CORRUPT_LIMIT: f64 = 0.01;

/// Up to `batch` pictures; all but the last batch are full.
#[derive(Debug)]
pub struct EvalBatch {
    /// The pictures in the first rows, `ids.len()` of them; the rest is
    /// padding.
    pub ids: Vec<u32>,
    /// Their labels; -1 for none.
    pub labels: Vec<i32>,
    /// `batch` x `px` x `px` x 3 bytes, row-major RGB; padding is 0.
    pub pictures: Vec<u8>,
}

/// Batches in the order of the ids that were asked for. Corrupt pictures are left out.
pub struct EvalBatches {
    data: Arc<Dataset>,
    px: u32,
    batch: usize,
    ids: std::vec::IntoIter<u32>,
    pool: Pool<u32, Result<(u32, Vec<u8>), Corrupt>>,
    corrupt: CorruptLog,
    failed: bool,
}

/// The evaluation views (see [`Scaler::central`]) of all pictures or, with
/// `limit`, of so many drawn from them: always the same ones.
///
/// # Errors
/// [`bad_input!`] if `batch` or `px` is 0; an error if threads cannot be
/// started.
pub fn eval_batches(
    data: &Arc<Dataset>,
    px: u32,
    batch: usize,
    limit: Option<usize>,
    workers: usize,
) -> Result<EvalBatches> {
    let ids = choose(data.len() as u32, limit);
    eval_batches_of(data, ids, px, batch, workers)
}

/// [`eval_batches`] of the pictures with these ids, in their order.
///
/// # Errors
/// As [`eval_batches`]; [`bad_input!`] for an id that is not in the data.
pub fn eval_batches_of(
    data: &Arc<Dataset>,
    ids: Vec<u32>,
    px: u32,
    batch: usize,
    workers: usize,
) -> Result<EvalBatches> {
    if let Some(id) = ids.iter().find(|id| **id as usize >= data.len()) {
        return Err(bad_input!("there is no picture {id} of {}", data.len()));
    }
    if batch == 0 || px == 0 {
        return Err(bad_input!(
            "expected a batch and a picture of at least 1, found {batch} and {px} px"
        ));
    }
    let pool = Pool::new(workers, || {
        let data = data.clone();
        let mut scaler = Scaler::default();
        move |id: u32| {
            let mut out = vec![0; px as usize * px as usize * 3];
            data.decode_unnamed(id as usize)
                .and_then(|picture| scaler.central(&picture, px, &mut out))
                .map(|()| (id, out))
                .map_err(|error| Corrupt {
                    id,
                    name: data.name(id as usize),
                    error: format!("{error:#}"),
                    replacement: None,
                })
        }
    })?;
    Ok(EvalBatches {
        px,
        batch,
        ids: ids.into_iter(),
        pool,
        corrupt: CorruptLog::new(data.len(), CORRUPT_LIMIT),
        failed: false,
        data: data.clone(),
    })
}

/// All ids, or `limit` of them without repeats, in order.
pub(super) fn choose(len: u32, limit: Option<usize>) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..len).collect();
    if let Some(limit) = limit.filter(|&limit| limit < ids.len()) {
        // Data are often sorted by class, or give classes in turn: neither
        // the first ones nor every n-th would be a fair choice.
        let mut stream = Stream::new(0, Purpose::Shuffle, (u32::MAX, 0));
        for place in 0..limit {
            let other = place as u32 + stream.below(len - place as u32);
            ids.swap(place, other as usize);
        }
        ids.truncate(limit);
        ids.sort_unstable();
    }
    ids
}

impl EvalBatches {
    /// The pictures left out so far.
    pub fn corrupt(&self) -> Vec<Corrupt> {
        self.corrupt.pictures()
    }

    fn take_batch(&mut self) -> Result<EvalBatch> {
        let view = self.px as usize * self.px as usize * 3;
        let mut batch = EvalBatch {
            ids: Vec::with_capacity(self.batch),
            labels: Vec::with_capacity(self.batch),
            pictures: Vec::with_capacity(self.batch * view),
        };
        while batch.ids.len() < self.batch {
            while self.pool.under_way() < 2 * self.batch as u64 {
                let Some(id) = self.ids.next() else { break };
                self.pool.submit(id);
            }
            match self.pool.take().transpose()? {
                None => break,
                Some(Ok((id, bytes))) => {
                    self.corrupt.record(1, &[])?;
                    let label = self.data.label(id as usize);
                    batch.ids.push(id);
                    batch.labels.push(label.map_or(-1, |label| label as i32));
                    batch.pictures.extend(bytes);
                }
                Some(Err(corrupt)) => self.corrupt.record(1, &[corrupt])?,
            }
        }
        batch.pictures.resize(self.batch * view, 0);
        Ok(batch)
    }
}

impl Iterator for EvalBatches {
    type Item = Result<EvalBatch>;

    fn next(&mut self) -> Option<Result<EvalBatch>> {
        if self.failed {
            return None;
        }
        let batch = self.take_batch();
        self.failed = batch.is_err();
        batch
            .map(|batch| (!batch.ids.is_empty()).then_some(batch))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;

    fn data(spec: &str) -> Arc<Dataset> {
        Arc::new(Dataset::open(&DataSpec::new(spec)).unwrap())
    }

    #[test]
    fn every_picture_comes_once_and_the_last_batch_is_padded() {
        let data = data("synthetic:N=10,px=8,K=3");
        let all: Vec<EvalBatch> = eval_batches(&data, 8, 4, None, 2)
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
        let ids: Vec<Vec<u32>> = all.iter().map(|batch| batch.ids.clone()).collect();
        assert_eq!(ids, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        assert_eq!(all[1].labels, [1, 2, 0, 1]);
        let last = &all[2].pictures;
        assert_eq!(last.len(), 4 * 192);
        assert_eq!(last[192..384], data.decode(9).unwrap().rgb);
        assert!(last[384..].iter().all(|&v| v == 0));
    }

    #[test]
    fn a_limit_draws_a_fair_subset() {
        let ids = choose(4096, Some(1024));
        assert_eq!(ids.len(), 1024);
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        let mut classes = [0; 8];
        ids.iter().for_each(|id| classes[(id % 8) as usize] += 1);
        assert!(classes.iter().all(|&n| (90..170).contains(&n)));
        assert_eq!(choose(5, Some(9)), [0, 1, 2, 3, 4]);
    }
}

//! Batches of augmentable views, decoded ahead of the device.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use bytes::BytesMut;

use super::augment::{self, COLUMNS};
use super::corrupt::{Corrupt, CorruptLog};
use super::dataset::Dataset;
use super::decode::Picture;
use super::pool::Pool;
use super::rand_augment;
use super::resize::Scaler;
use super::sampler::Sampler;
use crate::bad_input;
use crate::config::Augment;
use crate::rng::{Purpose, Stream};

/// Pictures tried in place of a corrupt one.
const REPLACEMENT_TRIES: usize = 16;

/// What a [`Loader`] gives.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    pub seed: u64,
    /// The global batch, in pictures.
    pub batch: usize,
    /// Side of a view in pixels.
    pub px: u32,
    /// Views of each picture, 1 or 2; without the second its buffer and rows
    /// are empty.
    pub views: usize,
    pub augment: Augment,
    /// Decoding threads, at least 1.
    pub workers: usize,
    /// Batches decoded ahead, at least 1.
    pub prefetch: usize,
    /// Largest share of corrupt pictures among those seen.
    pub corrupt_limit: f64,
    /// Which rows of the global batch this host loads.
    pub rows: Range<usize>,
    /// Which steps, counted from 0.
    pub steps: Range<u64>,
}

/// One step's input: the host's rows of the global batch, `n` of them.
#[derive(Debug)]
pub struct Batch {
    pub step: u64,
    pub epoch: u32,
    /// The pictures in the rows (of a replaced one, its replacement).
    pub ids: Vec<u32>,
    /// Their labels; -1 for none.
    pub labels: Vec<i32>,
    /// Per view `n` x `px` x `px` x 3 bytes, row-major RGB.
    pub views: [BytesMut; 2],
    /// Per view `n` x [`COLUMNS`] values.
    pub params: [Vec<f32>; 2],
    /// Pictures of this batch that were replaced.
    pub replaced: Vec<Corrupt>,
}

struct Job {
    epoch: u32,
    sample: u32,
    /// The row's place in the staging buffer of each view.
    views: [BytesMut; 2],
}

struct Row {
    id: u32,
    label: i32,
    views: [BytesMut; 2],
    /// One for each view.
    params: Vec<[f32; COLUMNS]>,
    replaced: Vec<Corrupt>,
}

/// Gives batches in the order of their steps. What is in them depends on
/// nothing but data, configuration and step; the threads only make them
/// sooner. An iterator; it ends after an error.
pub struct Loader {
    config: LoaderConfig,
    sampler: Sampler,
    pool: Pool<Job, Result<Row>>,
    /// Steps under way, with their epochs.
    pending: VecDeque<(u64, u32)>,
    next_step: u64,
    /// Staging buffers given back.
    free: Vec<[BytesMut; 2]>,
    corrupt: CorruptLog,
    failed: bool,
}

impl Loader {
    /// Starts the threads and the first batches.
    ///
    /// # Errors
    /// [`bad_input!`] if the batch does not fit the data or a value is out of
    /// range; an error if threads cannot be started.
    pub fn new(data: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        let sampler = Sampler::new(data.len(), config.batch, config.seed)?;
        check(&config)?;
        let corrupt = CorruptLog::new(data.len(), config.corrupt_limit);
        let pool = Pool::new(config.workers, || {
            let maker = RowMaker {
                data: data.clone(),
                augment: config.augment.clone(),
                seed: config.seed,
                px: config.px,
                views: config.views,
            };
            let mut scaler = Scaler::default();
            move |job| maker.make(job, &mut scaler)
        })?;
        let mut loader = Self {
            next_step: config.steps.start,
            config,
            sampler,
            pool,
            pending: VecDeque::new(),
            free: Vec::new(),
            corrupt,
            failed: false,
        };
        loader.submit_ahead()?;
        Ok(loader)
    }

    /// The corrupt pictures in the batches given so far, each once, by id.
    pub fn corrupt(&self) -> Vec<Corrupt> {
        self.corrupt.pictures()
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.steps_per_epoch()
    }

    /// Takes a batch's staging buffers back, to be filled again.
    pub fn recycle(&mut self, batch: Batch) {
        self.free.push(batch.views);
    }

    /// Bytes of each view of a picture.
    fn view_bytes(&self) -> [usize; 2] {
        let bytes = self.config.px as usize * self.config.px as usize * 3;
        [0, 1].map(|view| if view < self.config.views { bytes } else { 0 })
    }

    fn submit_ahead(&mut self) -> Result<()> {
        let view_bytes = self.view_bytes();
        while self.pending.len() < self.config.prefetch && self.next_step < self.config.steps.end {
            let (epoch, ids) = self.sampler.batch(self.next_step)?;
            let rows = self.config.rows.clone();
            let mut staging = self
                .free
                .pop()
                .unwrap_or_else(|| view_bytes.map(|bytes| BytesMut::zeroed(rows.len() * bytes)));
            for &sample in &ids[rows] {
                let [first, second] = &mut staging;
                let [of_first, of_second] = view_bytes;
                let views = [first.split_to(of_first), second.split_to(of_second)];
                self.pool.submit(Job {
                    epoch,
                    sample,
                    views,
                });
            }
            self.pending.push_back((self.next_step, epoch));
            self.next_step += 1;
        }
        Ok(())
    }

    fn take_batch(&mut self, step: u64, epoch: u32) -> Result<Batch> {
        let rows = self.config.rows.len();
        let mut batch = Batch {
            step,
            epoch,
            ids: Vec::with_capacity(rows),
            labels: Vec::with_capacity(rows),
            views: Default::default(),
            params: [(); 2].map(|()| Vec::with_capacity(rows * COLUMNS)),
            replaced: Vec::new(),
        };
        for _ in 0..rows {
            let row = self.pool.take().expect("a job for every row")??;
            batch.ids.push(row.id);
            batch.labels.push(row.label);
            for (view, bytes) in row.views.into_iter().enumerate() {
                // Neighbours in one buffer: joined without a copy.
                batch.views[view].unsplit(bytes);
            }
            for (all, row) in batch.params.iter_mut().zip(row.params) {
                all.extend(row);
            }
            batch.replaced.extend(row.replaced);
        }
        self.corrupt.record(rows, &batch.replaced)?;
        Ok(batch)
    }
}

fn check(config: &LoaderConfig) -> Result<()> {
    let Range { start, end } = config.rows;
    if start >= end || end > config.batch {
        return Err(bad_input!(
            "rows {start}..{end} are not rows of a batch of {}",
            config.batch
        ));
    }
    if !(1..=4096).contains(&config.px) {
        return Err(bad_input!(
            "expected views of 1 to 4096 pixels a side, found {}",
            config.px
        ));
    }
    if !(1..=2).contains(&config.views) {
        return Err(bad_input!(
            "expected 1 or 2 views of a picture, found {}",
            config.views
        ));
    }
    if config.prefetch == 0 {
        return Err(bad_input!("expected at least one batch ahead, found 0"));
    }
    if !(0.0..=1.0).contains(&config.corrupt_limit) {
        return Err(bad_input!(
            "expected a limit of corrupt pictures in 0..=1, found {}",
            config.corrupt_limit
        ));
    }
    Ok(())
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.failed {
            return None;
        }
        let (step, epoch) = self.pending.pop_front()?;
        // The next batch is begun before this one is waited for, so the
        // threads never run dry between two calls.
        let batch = self
            .submit_ahead()
            .and_then(|()| self.take_batch(step, epoch));
        self.failed = batch.is_err();
        Some(batch)
    }
}

/// What the threads do.
struct RowMaker {
    data: Arc<Dataset>,
    augment: Augment,
    seed: u64,
    px: u32,
    views: usize,
}

impl RowMaker {
    fn make(&self, job: Job, scaler: &mut Scaler) -> Result<Row> {
        let (id, picture, replaced) = self.decode_or_replace(job.epoch, job.sample)?;
        let mut views = job.views;
        let mut params = Vec::with_capacity(self.views);
        for (view, out) in views.iter_mut().enumerate().take(self.views) {
            // Drawn for the sample that the row is of, whatever stands in.
            let size = (picture.width, picture.height);
            let (part, row) =
                augment::draw(&self.augment, self.seed, job.epoch, job.sample, view, size);
            scaler.crop(&picture, part, self.px, out)?;
            if let Some(config) = &self.augment.rand_augment {
                let fill = rand_augment::fill(self.augment.mean);
                for draw in rand_augment::draw(config, self.seed, job.epoch, job.sample) {
                    rand_augment::apply(out, self.px as usize, fill, &draw);
                }
            }
            params.push(row);
        }
        let label = self.data.label(id as usize);
        Ok(Row {
            id,
            label: label.map_or(-1, |label| label as i32),
            views,
            params,
            replaced,
        })
    }

    /// The sample's picture or, if it is corrupt, the first whole one of
    /// those drawn from (seed, epoch, sample).
    fn decode_or_replace(&self, epoch: u32, sample: u32) -> Result<(u32, Picture, Vec<Corrupt>)> {
        let mut draws = Stream::new(self.seed, Purpose::Replace, (epoch, sample));
        let mut id = sample;
        let mut corrupt: Vec<Corrupt> = Vec::new();
        for _ in 0..=REPLACEMENT_TRIES {
            match self.data.decode_unnamed(id as usize) {
                Ok(picture) => {
                    for one in &mut corrupt {
                        one.replacement = Some(self.data.name(id as usize));
                    }
                    return Ok((id, picture, corrupt));
                }
                Err(error) => corrupt.push(Corrupt {
                    id,
                    name: self.data.name(id as usize),
                    error: format!("{error:#}"),
                    replacement: None,
                }),
            }
            id = draws.below(self.data.len() as u32);
        }
        Err(bad_input!(
            "{} could not be decoded ({}), and neither could {REPLACEMENT_TRIES} others in its \
             place; `data check` lists what is corrupt",
            corrupt[0].name,
            corrupt[0].error
        ))
    }
}

#[cfg(test)]
mod tests;

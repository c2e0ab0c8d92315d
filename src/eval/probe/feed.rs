//! What the probe's classifiers are trained on, batch by batch.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::super::extract::Features;
use super::Protocol;
use crate::config::RunConfig;
use crate::data::{Dataset, Loader, LoaderConfig, Sampler};
use crate::pjrt::Buffer;
use crate::programs::probe_step::augmentation;

/// Batches in the order of their steps.
pub(super) enum Feed {
    Cached {
        features: Features,
        batch: usize,
        sampler: Sampler,
    },
    Decoded(Box<Loader>),
}

impl Feed {
    pub fn cached(features: Features, batch: usize, seed: u64) -> Result<Self> {
        Ok(Self::Cached {
            sampler: Sampler::new(features.labels.len(), batch, seed)?,
            features,
            batch,
        })
    }

    /// From the first step of epoch `first` on.
    pub fn decoded(
        data: &Arc<Dataset>,
        config: &RunConfig,
        protocol: &Protocol,
        first: u32,
    ) -> Result<Self> {
        let of_epochs = |epochs: u32| data.len() as u64 / protocol.batch as u64 * u64::from(epochs);
        let loader = LoaderConfig {
            seed: config.seed,
            batch: protocol.batch,
            px: config.model.image_size as u32,
            views: 1,
            augment: augmentation(config, protocol.crop_min),
            workers: config.data.worker_count(),
            prefetch: config.data.prefetch,
            corrupt_limit: config.data.corrupt_limit,
            rows: 0..protocol.batch,
            steps: of_epochs(first)..of_epochs(protocol.epochs),
        };
        let loader = Loader::new(data.clone(), loader)?;
        Ok(Self::Decoded(Box::new(loader)))
    }

    pub fn steps_per_epoch(&self) -> u64 {
        match self {
            Self::Cached { sampler, .. } => sampler.steps_per_epoch(),
            Self::Decoded(loader) => loader.steps_per_epoch(),
        }
    }

    /// How many arrays a batch is.
    pub fn arrays(&self) -> usize {
        match self {
            Self::Cached { .. } => 2,
            Self::Decoded(_) => 3,
        }
    }

    /// The arrays of a step in the order of the step's arguments, each handed
    /// to `put` with its place. Steps are asked for in their order.
    pub fn next(
        &mut self,
        step: u64,
        put: &dyn Fn(usize, &[u8]) -> Result<Buffer>,
    ) -> Result<Vec<Buffer>> {
        match self {
            Self::Cached {
                features,
                batch,
                sampler,
            } => {
                let width = 4 * features.dim;
                let (_, ids) = sampler.batch(step)?;
                let mut rows = Vec::with_capacity(*batch * width);
                let mut labels = Vec::with_capacity(*batch * 4);
                for id in ids {
                    rows.extend(&features.bytes[id as usize * width..][..width]);
                    labels.extend(features.labels[id as usize].to_le_bytes());
                }
                Ok(vec![put(0, &rows)?, put(1, &labels)?])
            }
            Self::Decoded(loader) => {
                let batch = loader.next().context("the loader ended early")??;
                let rows: Vec<u8> = batch.params[0]
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect();
                let labels: Vec<u8> = batch.labels.iter().flat_map(|x| x.to_le_bytes()).collect();
                let arrays = vec![put(0, &batch.views[0])?, put(1, &rows)?, put(2, &labels)?];
                loader.recycle(batch);
                Ok(arrays)
            }
        }
    }
}

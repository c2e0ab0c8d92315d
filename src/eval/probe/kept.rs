//! A probe's classifiers on disk after each epoch, so that one that was stopped
//! goes on where it was.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Result, ensure};

use super::Classifier;
use crate::bad_input;
use crate::checkpoint::{self, Dtype, HostTensor, Origin, Retention, RunDir, RunLock, Snapshot};

/// What the classifiers had come to, beside their state.
const OUTCOME: &str = "outcome";
/// Numbers of a classifier there.
const NUMBERS: usize = 3;

/// A folder of a probe's own, of the form of a run's: a checkpoint for the
/// newest epoch.
pub struct Kept {
    run: RunDir,
    origin: Origin,
    _lock: RunLock,
}

impl Kept {
    /// Takes the folder. `identity` tells one probe from another: protocol, data,
    /// checkpoint.
    ///
    /// # Errors
    /// [`bad_input!`] for a folder that cannot be written, that another process
    /// holds, or that has another probe's state.
    pub fn open(folder: &Path, identity: &str) -> Result<Self> {
        let run = RunDir::create(folder)?;
        let kept = Self {
            _lock: run.lock()?,
            run,
            origin: Origin {
                config_fingerprint: identity.to_owned(),
                crate_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Origin::default()
            },
        };
        if let Some(found) = checkpoint::load_latest(&kept.run)?
            && found.manifest.origin.config_fingerprint != identity
        {
            return Err(bad_input!(
                "{} has the state of another probe (other protocol, pictures or checkpoint): \
                 give another folder with --out",
                folder.display()
            ));
        }
        Ok(kept)
    }

    /// The newest state: after how many epochs, the variables' and momenta's
    /// bytes by name, and what each classifier had come to.
    pub(super) fn newest(&self, blank: &[Classifier]) -> Result<Option<Epochs>> {
        let Some(found) = checkpoint::load_latest(&self.run)? else {
            return Ok(None);
        };
        let epochs = found.snapshot.step();
        let mut tensors = found.snapshot.into_tensors();
        let at = tensors.iter().position(|tensor| tensor.name == OUTCOME);
        let outcome = at
            .map(|at| tensors.swap_remove(at).data)
            .unwrap_or_default();
        let numbers: Vec<f64> = outcome
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(f64::from_le_bytes)
            .collect();
        ensure!(
            numbers.len() == NUMBERS * blank.len(),
            "{} is no probe's state of {} classifiers",
            found.path.display(),
            blank.len()
        );
        let told = |(one, numbers): (&Classifier, &[f64])| Classifier {
            held_out_top1: (!numbers[0].is_nan()).then_some(numbers[0]),
            train_top1: numbers[1],
            train_loss: numbers[2],
            ..one.clone()
        };
        let classifiers = blank
            .iter()
            .zip(numbers.chunks_exact(NUMBERS))
            .map(told)
            .collect();
        Ok(Some(Epochs {
            epochs,
            tensors,
            classifiers,
        }))
    }

    /// Keeps the state after so many epochs, in the place of the one before.
    pub(super) fn save(&self, state: Epochs) -> Result<()> {
        let Epochs {
            epochs,
            mut tensors,
            classifiers,
        } = state;
        let numbers = classifiers.iter().flat_map(|one| {
            [
                one.held_out_top1.unwrap_or(f64::NAN),
                one.train_top1,
                one.train_loss,
            ]
        });
        tensors.push(HostTensor {
            name: OUTCOME.into(),
            dtype: Dtype::F64,
            shape: vec![classifiers.len(), NUMBERS],
            data: numbers.flat_map(f64::to_le_bytes).collect(),
        });
        let snapshot = Snapshot::new(epochs, tensors)?;
        checkpoint::save(&self.run, &snapshot, &self.origin)?;
        let newest = Retention {
            keep_last: NonZeroUsize::MIN,
            keep_every: None,
            pinned: Default::default(),
        };
        newest.apply(&self.run, epochs)?;
        Ok(())
    }
}

/// The state after so many epochs.
pub(super) struct Epochs {
    pub epochs: u64,
    pub tensors: Vec<HostTensor>,
    pub classifiers: Vec<Classifier>,
}

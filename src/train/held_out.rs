//! Classification of held-out pictures, between steps: by their neighbours, and
//! in training with labels by the classifier itself.

use std::sync::Arc;

use anyhow::Result;

use crate::checkpoint::RunDir;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::eval::classify::Classifier;
use crate::eval::knn;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::report::read_events;

/// How held-out pictures are classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Knn,
    /// By the classifier that is trained.
    Top1,
}

impl Measure {
    /// That of a configuration's method.
    pub fn of(config: &RunConfig) -> Self {
        match config.method.supervised {
            Some(_) => Self::Top1,
            None => Self::Knn,
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Knn => "kNN",
            Self::Top1 => "top-1",
        }
    }

    /// The kind of its events.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Knn => "heldout_knn",
            Self::Top1 => "heldout_top1",
        }
    }

    /// In the evidence of its events.
    pub fn key(self) -> &'static str {
        match self {
            Self::Knn => "knn_top1",
            Self::Top1 => "top1",
        }
    }
}

/// Held-out pictures, and what classifies them.
pub enum HeldOut {
    Knn(knn::HeldOut),
    Top1(Classifier),
}

/// An accuracy and how it came about.
pub struct Accuracy {
    pub measure: Measure,
    /// Percent.
    pub top1: f64,
    pub protocol: String,
}

impl HeldOut {
    /// # Errors
    /// As those of [`knn::HeldOut::new`] and [`Classifier::new`].
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        train: &Arc<Dataset>,
        test: &Arc<Dataset>,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        Ok(match Measure::of(config) {
            Measure::Knn => Self::Knn(knn::HeldOut::new(client, config, train, test, cache)?),
            Measure::Top1 => Self::Top1(Classifier::new(client, config, test, cache)?),
        })
    }

    /// # Errors
    /// If the pictures cannot be read, or the device fails.
    pub fn evaluate(&self, encoder: &[(&str, &Buffer)]) -> Result<Accuracy> {
        match self {
            Self::Knn(held_out) => {
                let knn = held_out.evaluate(encoder)?;
                Ok(Accuracy {
                    measure: Measure::Knn,
                    top1: knn.top1,
                    protocol: format!("k {}, bank {}, {} queries", knn.k, knn.bank, knn.queries),
                })
            }
            Self::Top1(classifier) => {
                let tally = classifier.evaluate(encoder)?;
                let pictures: usize = tally.per_class.iter().map(|class| class.queries).sum();
                Ok(Accuracy {
                    measure: Measure::Top1,
                    top1: tally.top1,
                    protocol: format!("{pictures} pictures, centre crop"),
                })
            }
        }
    }
}

/// Accuracy in percent after each step where it was measured, from the run's
/// events.
pub fn history(run: &RunDir, measure: Measure) -> Result<Vec<(u64, f64)>> {
    let events = read_events(run)?.into_iter();
    let mut history: Vec<(u64, f64)> = events
        .filter(|event| event.kind == measure.kind())
        .filter_map(|event| Some((event.step, event.evidence.get(measure.key())?.as_f64()?)))
        .collect();
    history.sort_by_key(|&(step, _)| step);
    Ok(history)
}

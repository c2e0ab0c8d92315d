//! The linear probe: a classifier on frozen features, trained at several
//! learning rates, and on features of several places of the backbone, in one
//! pass.
//!
//! Rate and place are chosen on pictures held out of the training set; the test
//! pictures are looked at once, with the classifier chosen. Held-out and test
//! pictures are not augmented, so their features are made once.

mod feed;
mod kept;
mod training;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;

pub use self::kept::Kept;
use self::training::Training;
use super::extract::{Extractor, Features, Pictures};
use super::vote::Tally;
use crate::bad_input;
use crate::config::RunConfig;
use crate::data::{Dataset, Sampler, hold_out};
use crate::graph::Shape;
use crate::models::Tap;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::programs::features::Form;

/// Most classifiers in one pass.
const MOST_CLASSIFIERS: usize = 256;

/// What the classifiers are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A new random resized crop and flip of each picture in each epoch.
    Augmented,
    /// Features made once, without augmentation.
    Cached,
}

/// How to probe. SGD with momentum .9 and no weight decay; the rate follows a
/// cosine to 0, in steps of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Protocol {
    pub mode: Mode,
    /// Where features are read, each place with classifiers of its own; nowhere:
    /// at the backbone's output.
    pub taps: Vec<Tap>,
    /// The smallest crop in training, as a share of the picture's area.
    pub crop_min: f64,
    pub epochs: u32,
    pub batch: usize,
    /// Learning rates for a batch of 256.
    pub base_rates: Vec<f64>,
    /// A batch norm without gain and bias before the classifier.
    pub batch_norm: bool,
    /// The share of the training pictures on which the classifier is chosen.
    /// Where there is only one, nothing is held out.
    pub held_out: f64,
}

impl Protocol {
    /// Classifiers that are trained.
    fn classifiers(&self) -> usize {
        self.taps.len().max(1) * self.base_rates.len()
    }

    /// The share of the training pictures that is held out.
    pub fn share(&self) -> f64 {
        match self.classifiers() {
            1 => 0.0,
            _ => self.held_out,
        }
    }

    /// The classifiers before anything is known of them: all rates on the first
    /// kind of features, then on the next.
    fn blank(&self) -> Vec<Classifier> {
        let names: Vec<Option<String>> = match self.taps.is_empty() {
            true => vec![None],
            false => self.taps.iter().map(|tap| Some(tap.to_string())).collect(),
        };
        let scale = self.batch as f64 / 256.0;
        let one = |features: &Option<String>, base: f64| Classifier {
            features: features.clone(),
            base,
            peak: base * scale,
            held_out_top1: None,
            train_top1: f64::NAN,
            train_loss: f64::NAN,
        };
        let of_all = |name| self.base_rates.iter().map(move |base| one(name, *base));
        names.iter().flat_map(of_all).collect()
    }
}

/// What one classifier came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classifier {
    /// Where its features are read; none: at the backbone's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    pub base: f64,
    /// At the first epoch: base * batch / 256.
    pub peak: f64,
    /// Percent of the held-out pictures; none where nothing is held out.
    pub held_out_top1: Option<f64>,
    /// Percent of the training pictures in the last epoch, as trained on.
    pub train_top1: f64,
    /// In the last epoch; not finite where training diverged.
    pub train_loss: f64,
}

/// The probe's result.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    pub classifiers: Vec<Classifier>,
    /// Which of `classifiers` was chosen.
    pub chosen: usize,
    /// Of the test pictures, with the classifier chosen.
    pub test: Tally,
    /// Pictures trained on, held out, and tested on.
    pub train_pictures: usize,
    pub held_out_pictures: usize,
    pub test_pictures: usize,
}

/// Data, protocol and the program that makes features.
pub struct LinearProbe {
    client: Arc<Client>,
    config: RunConfig,
    protocol: Protocol,
    extractor: Extractor,
    train: Arc<Dataset>,
    held_out: Option<Arc<Dataset>>,
    test: Arc<Dataset>,
    cache: Option<CompileCache>,
}

impl LinearProbe {
    /// Compiles the features program for the client's first device. Labels of
    /// `test` must be those of `train`'s classes.
    ///
    /// # Errors
    /// [`bad_input!`] for data without labels, or a protocol that does not
    /// fit them; the compiler's.
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        protocol: &Protocol,
        train: &Arc<Dataset>,
        test: &Arc<Dataset>,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        check(protocol)?;
        for tap in &protocol.taps {
            tap.check(&config.model)?;
        }
        for (what, data) in [("training", train), ("test", test)] {
            if !data.is_labelled() {
                return Err(bad_input!(
                    "the {what} pictures have no labels, or all the same one; a linear probe \
                     needs pictures in at least two class folders"
                ));
            }
        }
        let (train, held_out) = hold_out(train, protocol.share())?;
        Sampler::new(train.len(), protocol.batch, config.seed).with_context(|| {
            let held_out = held_out.as_ref().map_or(0, |data| data.len());
            format!("training on labelled pictures, with {held_out} held out")
        })?;
        let form = match protocol.taps.is_empty() {
            true => Form::Plain,
            false => Form::Taps(protocol.taps.clone()),
        };
        Ok(Self {
            client: client.clone(),
            config: config.clone(),
            protocol: protocol.clone(),
            extractor: Extractor::new(client, config, form, cache)?,
            train,
            held_out,
            test: test.clone(),
            cache: cache.cloned(),
        })
    }

    /// Names and shapes of the variables that [`LinearProbe::run`] needs.
    pub fn variables(&self) -> &[(String, Shape)] {
        self.extractor.variables()
    }

    /// Trains, chooses, tests. `backbone` has the state's `base_encoder.*` on
    /// the client's first device; what else it has is not looked at. With `kept`
    /// it goes on from the newest epoch there, and keeps each.
    ///
    /// # Errors
    /// If a variable is missing, too many pictures are corrupt, every classifier
    /// diverged, the device fails, or an epoch cannot be kept.
    pub fn run(&self, backbone: &[(&str, &Buffer)], kept: Option<&Kept>) -> Result<ProbeResult> {
        let held_out = match &self.held_out {
            Some(data) => Some(self.features(backbone, "held-out", data)?),
            None => None,
        };
        let cached = match self.protocol.mode {
            Mode::Cached => Some(self.features(backbone, "training", &self.train)?),
            Mode::Augmented => None,
        };
        let train_pictures = cached.as_ref().map_or(self.train.len(), |f| f.labels.len());
        let mut training = Training::new(self, cached, kept)?;
        while training.epochs() < self.protocol.epochs {
            training.epoch(backbone, held_out.as_ref())?;
            if let Some(kept) = kept {
                kept.save(training.state()?)?;
            }
        }
        let classifiers = training.classifiers().to_vec();
        let chosen = choose(&classifiers)?;
        let test = self.features(backbone, "test", &self.test)?;
        let predicted = training.predict(&test)?;
        let rows = predicted.chunks_exact(classifiers.len());
        let of_chosen: Vec<u32> = rows.map(|row| row[chosen]).collect();
        let classes = self.test.classes();
        if of_chosen
            .iter()
            .any(|class| *class as usize >= classes.len())
        {
            bail!("the classifier chosen diverged in its last step: try lower rates (--lr)");
        }
        Ok(ProbeResult {
            chosen,
            test: Tally::of(test.labels.iter().copied().zip(of_chosen), classes),
            classifiers,
            train_pictures,
            held_out_pictures: held_out.map_or(0, |features| features.labels.len()),
            test_pictures: test.labels.len(),
        })
    }

    fn upload(&self, bytes: &[u8], shape: Shape) -> Result<Buffer> {
        let device = &self.client.devices()[0];
        let buffer = self
            .client
            .buffer_from_host(bytes, shape.dtype, shape.dims(), device);
        Ok(buffer?)
    }

    fn features(
        &self,
        backbone: &[(&str, &Buffer)],
        what: &str,
        data: &Arc<Dataset>,
    ) -> Result<Features> {
        tracing::info!("features of {} {what} pictures", data.len());
        let pictures = Pictures::new(data, None, self.config.data.worker_count(), false);
        let features = self.extractor.run(backbone, &pictures)?;
        if features.labels.is_empty() {
            return Err(bad_input!("none of the {what} pictures has a label"));
        }
        Ok(features)
    }
}

fn check(protocol: &Protocol) -> Result<()> {
    let rates = &protocol.base_rates;
    let classifiers = protocol.classifiers();
    if !(1..=MOST_CLASSIFIERS).contains(&classifiers) {
        return Err(bad_input!(
            "expected 1 to {MOST_CLASSIFIERS} classifiers, found {classifiers}: one for each \
             learning rate on each of the features"
        ));
    }
    if !(protocol.crop_min > 0.0 && protocol.crop_min <= 1.0) {
        return Err(bad_input!(
            "expected a smallest crop above 0 and at most 1, found {}",
            protocol.crop_min
        ));
    }
    if let Some(rate) = rates
        .iter()
        .find(|rate| !(rate.is_finite() && **rate > 0.0))
    {
        return Err(bad_input!("the learning rate {rate} is not above 0"));
    }
    if protocol.epochs == 0 {
        return Err(bad_input!("expected at least one epoch, found 0"));
    }
    if classifiers > 1 && !(protocol.held_out > 0.0 && protocol.held_out < 1.0) {
        return Err(bad_input!(
            "the classifier is chosen on pictures held out of the training set: expected a share \
             between 0 and 1 of them, found {}",
            protocol.held_out
        ));
    }
    Ok(())
}

/// The classifier that was best on the held-out pictures, the first of equal
/// ones; none that diverged.
fn choose(all: &[Classifier]) -> Result<usize> {
    let score = |one: &Classifier| one.held_out_top1.unwrap_or(0.0);
    let mut best: Option<usize> = None;
    for (at, one) in all.iter().enumerate() {
        let better = best.is_none_or(|best| score(one) > score(&all[best]));
        if one.train_loss.is_finite() && better {
            best = Some(at);
        }
    }
    match best {
        Some(best) => Ok(best),
        None => bail!("the classifiers of all learning rates diverged: try lower ones (--lr)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_classifier_is_the_first_of_equal_ones_that_did_not_diverge() {
        let one = |held_out_top1, train_loss| Classifier {
            features: None,
            base: 1.0,
            peak: 1.0,
            held_out_top1,
            train_top1: 0.0,
            train_loss,
        };
        let [low, high, gone] = [
            one(Some(40.0), 1.0),
            one(Some(60.0), 2.0),
            one(Some(99.0), f64::NAN),
        ];
        let chosen = |all: &[&Classifier]| {
            let all: Vec<Classifier> = all.iter().map(|one| (*one).clone()).collect();
            choose(&all).ok()
        };
        assert_eq!(chosen(&[&low, &high, &gone, &high]), Some(1));
        assert_eq!(chosen(&[&gone, &low]), Some(1));
        assert_eq!(chosen(&[&gone, &gone]), None);
        assert_eq!(chosen(&[&one(None, 0.3)]), Some(0));
    }
}

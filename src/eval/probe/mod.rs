//! The linear probe: a classifier on frozen features, trained at several
//! learning rates in one pass.
//!
//! The rate is chosen on pictures held out of the training set; the test
//! pictures are looked at once, with the classifier chosen. Held-out and test
//! pictures are not augmented, so their features are made once.

mod feed;
mod training;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use self::training::Training;
use super::extract::{Extractor, Features, Pictures};
use super::vote::Tally;
use crate::bad_input;
use crate::config::RunConfig;
use crate::data::{Dataset, Sampler, hold_out};
use crate::graph::Shape;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::programs::features::Form;

/// Most learning rates in one pass.
const MOST_RATES: usize = 64;

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
    pub epochs: u32,
    pub batch: usize,
    /// Learning rates for a batch of 256.
    pub base_rates: Vec<f64>,
    /// A batch norm without gain and bias before the classifier.
    pub batch_norm: bool,
    /// The share of the training pictures on which the rate is chosen. Where
    /// there is only one, nothing is held out.
    pub held_out: f64,
}

/// What one learning rate came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
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
    pub rates: Vec<Rate>,
    /// Which of `rates` was chosen.
    pub chosen: usize,
    /// Of the test pictures, with the classifier of the rate chosen.
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
        for (what, data) in [("training", train), ("test", test)] {
            if !data.is_labelled() {
                return Err(bad_input!(
                    "the {what} pictures have no labels, or all the same one; a linear probe \
                     needs pictures in at least two class folders"
                ));
            }
        }
        let share = match protocol.base_rates.len() {
            1 => 0.0,
            _ => protocol.held_out,
        };
        let (train, held_out) = hold_out(train, share)?;
        Sampler::new(train.len(), protocol.batch, config.seed).with_context(|| {
            let held_out = held_out.as_ref().map_or(0, |data| data.len());
            format!("training on labelled pictures, with {held_out} held out")
        })?;
        Ok(Self {
            client: client.clone(),
            config: config.clone(),
            protocol: protocol.clone(),
            extractor: Extractor::new(client, config, Form::Plain, cache)?,
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
    /// the client's first device; what else it has is not looked at.
    ///
    /// # Errors
    /// If a variable is missing, too many pictures are corrupt, every rate
    /// diverged, or the device fails.
    pub fn run(&self, backbone: &[(&str, &Buffer)]) -> Result<ProbeResult> {
        let held_out = match &self.held_out {
            Some(data) => Some(self.features(backbone, "held-out", data)?),
            None => None,
        };
        let cached = match self.protocol.mode {
            Mode::Cached => Some(self.features(backbone, "training", &self.train)?),
            Mode::Augmented => None,
        };
        let train_pictures = cached.as_ref().map_or(self.train.len(), |f| f.labels.len());
        let mut training = Training::new(self, cached)?;
        let mut rates = Vec::new();
        for epoch in 0..self.protocol.epochs {
            rates = training.epoch(backbone, epoch, held_out.as_ref())?;
        }
        let chosen = choose(&rates)?;
        let test = self.features(backbone, "test", &self.test)?;
        let predicted = training.predict(&test)?;
        let rows = predicted.chunks_exact(rates.len());
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
            rates,
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
    if rates.is_empty() || rates.len() > MOST_RATES {
        return Err(bad_input!(
            "expected 1 to {MOST_RATES} learning rates, found {}",
            rates.len()
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
    if rates.len() > 1 && !(protocol.held_out > 0.0 && protocol.held_out < 1.0) {
        return Err(bad_input!(
            "the rate is chosen on pictures held out of the training set: expected a share \
             between 0 and 1 of them, found {}",
            protocol.held_out
        ));
    }
    Ok(())
}

/// The rate that was best on the held-out pictures, the first of equal ones;
/// none that diverged.
fn choose(rates: &[Rate]) -> Result<usize> {
    let score = |rate: &Rate| rate.held_out_top1.unwrap_or(0.0);
    let mut best: Option<usize> = None;
    for (at, rate) in rates.iter().enumerate() {
        let better = best.is_none_or(|best| score(rate) > score(&rates[best]));
        if rate.train_loss.is_finite() && better {
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
    fn the_best_rate_is_the_first_of_equal_ones_that_did_not_diverge() {
        let rate = |held_out_top1, train_loss| Rate {
            base: 1.0,
            peak: 1.0,
            held_out_top1,
            train_top1: 0.0,
            train_loss,
        };
        let [low, high, gone] = [
            rate(Some(40.0), 1.0),
            rate(Some(60.0), 2.0),
            rate(Some(99.0), f64::NAN),
        ];
        let chosen = |rates: &[&Rate]| {
            let rates: Vec<Rate> = rates.iter().map(|rate| (*rate).clone()).collect();
            choose(&rates).ok()
        };
        assert_eq!(chosen(&[&low, &high, &gone, &high]), Some(1));
        assert_eq!(chosen(&[&gone, &low]), Some(1));
        assert_eq!(chosen(&[&gone, &gone]), None);
        assert_eq!(chosen(&[&rate(None, 0.3)]), Some(0));
    }
}

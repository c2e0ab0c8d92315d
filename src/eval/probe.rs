//! The linear probe: a classifier on frozen features, trained at several
//! learning rates in one pass.
//!
//! The rate is chosen on pictures held out of the training set; the test
//! pictures are looked at once, with the classifier chosen. Held-out and test
//! pictures are not augmented, so their features are made once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::extract::{Extractor, Features, Pictures};
use super::probe_feed::Feed;
use super::vote::Tally;
use crate::bad_input;
use crate::config::{ResolvedSchedule, RunConfig};
use crate::data::{Dataset, Sampler, hold_out};
use crate::graph::{DType, Input, Shape};
use crate::pjrt::{
    Arg, Buffer, Client, CompileCache, CompileOptions, Executable, Pending, Program,
};
use crate::programs::features::Length;
use crate::programs::probe_step::{self, Probe, Source};

/// Steps under way on the device.
const IN_FLIGHT: usize = 2;
/// Features classified at once.
const QUERIES: usize = 1024;
/// Most learning rates in one pass.
const MOST_RATES: usize = 64;
/// How often an epoch that takes long says where it is.
const NEWS_EVERY: Duration = Duration::from_secs(20);

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
            extractor: Extractor::new(client, config, Length::Own, cache)?,
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
        let count = rates.len();
        let of_chosen = predicted.chunks_exact(count).map(|row| row[chosen]);
        Ok(ProbeResult {
            chosen,
            test: Tally::of(
                test.labels.iter().copied().zip(of_chosen),
                self.test.classes(),
            ),
            rates,
            train_pictures,
            held_out_pictures: held_out.map_or(0, |features| features.labels.len()),
            test_pictures: test.labels.len(),
        })
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

/// The classifiers on the device while they are trained.
struct Training<'a> {
    of: &'a LinearProbe,
    probe: Probe,
    step: Executable,
    predict: Executable,
    state: Vec<Buffer>,
    /// The step's arguments after the state.
    inputs: Vec<Input>,
    feed: Feed,
    steps_per_epoch: u64,
    peaks: Vec<f64>,
}

impl<'a> Training<'a> {
    fn new(of: &'a LinearProbe, cached: Option<Features>) -> Result<Self> {
        let LinearProbe {
            config, protocol, ..
        } = of;
        let probe = Probe {
            rates: protocol.base_rates.len(),
            classes: of.train.classes().len(),
            dim: config.model.dim,
            batch_norm: protocol.batch_norm,
        };
        let source = match cached {
            Some(_) => Source::Features,
            None => Source::Crops(config),
        };
        let mut program = probe_step::build(&probe, protocol.batch, source)?;
        let compile = |program: &crate::programs::Program| -> Result<Executable> {
            let text = program.text();
            let (executable, origin) = of.client.compile_cached(
                &Program { text: &text },
                &CompileOptions::default(),
                of.cache.as_ref(),
            )?;
            tracing::debug!("{}: from the {origin:?}", program.name);
            Ok(executable)
        };
        let step = compile(&program)?;
        let predict = compile(&probe_step::predict(&probe, QUERIES)?)?;
        let feed = match cached {
            Some(features) => Feed::cached(features, protocol.batch, config.seed)?,
            None => Feed::decoded(&of.train, config, protocol)?,
        };
        let scale = protocol.batch as f64 / 256.0;
        let state = probe_step::initial_state(&probe, config.seed).into_iter();
        Ok(Self {
            of,
            probe,
            step,
            predict,
            state: state
                .map(|array| of.upload(&array.data, array.shape))
                .collect::<Result<_>>()?,
            inputs: program.graph.inputs.split_off(program.state),
            steps_per_epoch: feed.steps_per_epoch(),
            feed,
            peaks: protocol.base_rates.iter().map(|r| r * scale).collect(),
        })
    }

    /// One epoch; what each rate has come to then.
    fn epoch(
        &mut self,
        backbone: &[(&str, &Buffer)],
        epoch: u32,
        held_out: Option<&Features>,
    ) -> Result<Vec<Rate>> {
        let of = self.of;
        let epochs = of.protocol.epochs;
        let schedule = ResolvedSchedule {
            total_steps: epochs.into(),
            warmup_steps: 0,
        };
        let [frozen @ .., lr_input] = &self.inputs[..] else {
            bail!("the step takes no learning rates");
        };
        let given = frozen.len() - self.feed.arrays();
        let (frozen, fed) = frozen.split_at(given);
        let find = |input: &Input| -> Result<&Buffer> {
            let found = backbone.iter().find(|(name, _)| *name == input.name);
            let found = found.map(|(_, buffer)| *buffer);
            found.with_context(|| format!("the state has no variable {}", input.name))
        };
        let frozen: Vec<&Buffer> = frozen.iter().map(find).collect::<Result<_>>()?;
        let lr = self
            .peaks
            .iter()
            .map(|peak| schedule.lr(*peak, epoch.into()) as f32);
        let lr: Vec<u8> = lr.flat_map(f32::to_le_bytes).collect();
        let lr = of.upload(&lr, lr_input.value.shape)?;

        let mut means = Means::new(self.probe.rates);
        let mut under_way: VecDeque<Pending> = VecDeque::new();
        let mut last_news = Instant::now();
        for step in 0..self.steps_per_epoch {
            let put = |at: usize, bytes: &[u8]| of.upload(bytes, fed[at].value.shape);
            let batch = self
                .feed
                .next(u64::from(epoch) * self.steps_per_epoch + step, &put)?;
            let mut arguments: Vec<Arg> = self.state.drain(..).map(Arg::Donate).collect();
            arguments.extend(frozen.iter().map(|buffer| Arg::Borrow(buffer)));
            arguments.extend(batch.iter().map(Arg::Borrow));
            arguments.push(Arg::Borrow(&lr));
            let mut results = self.step.execute(vec![arguments])?.buffers.remove(0);
            let metrics = results.pop().context("the step gives no metrics")?;
            self.state = results;
            under_way.push_back(metrics.to_host_async()?);
            if under_way.len() > IN_FLIGHT {
                means.take(under_way.pop_front())?;
            }
            if last_news.elapsed() > NEWS_EVERY {
                last_news = Instant::now();
                let (done, all) = (step + 1, self.steps_per_epoch);
                tracing::info!("epoch {} of {epochs}: step {done} of {all}", epoch + 1);
            }
        }
        while !under_way.is_empty() {
            means.take(under_way.pop_front())?;
        }
        let held_out = held_out
            .map(|held_out| self.accuracies(held_out))
            .transpose()?;
        let rates = means.rates(&of.protocol.base_rates, &self.peaks, held_out.as_deref());
        tracing::info!("epoch {} of {epochs}: {}", epoch + 1, in_words(&rates));
        Ok(rates)
    }

    /// For each rate, the percentage that its classifier is right about.
    fn accuracies(&self, features: &Features) -> Result<Vec<f64>> {
        let predicted = self.predict(features)?;
        let rates = self.probe.rates;
        let mut right = vec![0usize; rates];
        for (row, actual) in predicted.chunks_exact(rates).zip(&features.labels) {
            for (count, class) in right.iter_mut().zip(row) {
                *count += usize::from(class == actual);
            }
        }
        let percent = |right| 100.0 * right as f64 / features.labels.len() as f64;
        Ok(right.into_iter().map(percent).collect())
    }

    /// The classes that the classifiers say, one for each rate, picture by
    /// picture.
    fn predict(&self, features: &Features) -> Result<Vec<u32>> {
        let of = self.of;
        let width = 4 * features.dim;
        let shape = Shape::new(DType::F32, &[QUERIES, features.dim]);
        let variables = &self.state[..self.probe.specs().len()];
        let mut predicted = Vec::with_capacity(features.labels.len() * self.probe.rates);
        for chunk in features.bytes.chunks(QUERIES * width) {
            let mut padded = chunk.to_vec();
            padded.resize(QUERIES * width, 0);
            let queries = of.upload(&padded, shape)?;
            let arguments = variables.iter().chain([&queries]).map(Arg::Borrow);
            let run = self.predict.execute(vec![arguments.collect()])?;
            let bytes = run.buffers[0][0].to_host()?;
            let count = chunk.len() / width * self.probe.rates;
            let words = bytes.as_chunks().0.iter().take(count);
            predicted.extend(words.map(|word| u32::from_le_bytes(*word)));
        }
        Ok(predicted)
    }
}

impl LinearProbe {
    fn upload(&self, bytes: &[u8], shape: Shape) -> Result<Buffer> {
        let device = &self.client.devices()[0];
        let buffer = self
            .client
            .buffer_from_host(bytes, shape.dtype, shape.dims(), device);
        Ok(buffer?)
    }
}

/// Sums of an epoch's metrics: losses, then accuracies.
struct Means {
    sums: Vec<f64>,
    steps: f64,
}

impl Means {
    fn new(rates: usize) -> Self {
        Self {
            sums: vec![0.0; 2 * rates],
            steps: 0.0,
        }
    }

    fn take(&mut self, metrics: Option<Pending>) -> Result<()> {
        let Some(metrics) = metrics else {
            return Ok(());
        };
        let bytes = metrics.wait()?;
        for (sum, word) in self.sums.iter_mut().zip(bytes.as_chunks().0) {
            *sum += f64::from(f32::from_le_bytes(*word));
        }
        self.steps += 1.0;
        Ok(())
    }

    fn rates(&self, base: &[f64], peaks: &[f64], held_out: Option<&[f64]>) -> Vec<Rate> {
        let (losses, right) = self.sums.split_at(base.len());
        let rate = |at: usize| Rate {
            base: base[at],
            peak: peaks[at],
            held_out_top1: held_out.map(|all| all[at]),
            train_top1: right[at] / self.steps,
            train_loss: losses[at] / self.steps,
        };
        (0..base.len()).map(rate).collect()
    }
}

/// The best of the rates so far.
fn in_words(rates: &[Rate]) -> String {
    let Ok(best) = choose(rates) else {
        return "all learning rates have diverged".into();
    };
    let best = &rates[best];
    let mut text = format!(
        "base lr {}: loss {:.3}, {:.2}% of the training pictures",
        best.base, best.train_loss, best.train_top1
    );
    if let Some(held_out) = best.held_out_top1 {
        text += &format!(
            ", {held_out:.2}% of the held-out ones (the best of {})",
            rates.len()
        );
    }
    text
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

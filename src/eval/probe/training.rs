//! The classifiers while they are trained.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::extract::Features;
use super::feed::Feed;
use super::kept::Epochs;
use super::{Classifier, Kept, LinearProbe, choose};
use crate::checkpoint::{Dtype, HostTensor};
use crate::config::ResolvedSchedule;
use crate::graph::{DType, Input, Shape};
use crate::pjrt::{Arg, Buffer, CompileOptions, Executable, Pending, Program};
use crate::programs;
use crate::programs::HostArray;
use crate::programs::probe_step::{self, Probe, Source, augmentation};

/// Steps under way on the device.
const IN_FLIGHT: usize = 2;
/// Features classified at once.
const QUERIES: usize = 1024;
/// How often an epoch that takes long says where it is.
const NEWS_EVERY: Duration = Duration::from_secs(20);

/// The classifiers on the device while they are trained.
pub(super) struct Training<'a> {
    of: &'a LinearProbe,
    probe: Probe,
    step: Executable,
    predict: Executable,
    state: Vec<Buffer>,
    /// The step's arguments after the state.
    inputs: Vec<Input>,
    feed: Feed,
    steps_per_epoch: u64,
    /// Epochs done, and what each classifier has come to then.
    epochs: u32,
    classifiers: Vec<Classifier>,
}

impl<'a> Training<'a> {
    /// From the beginning, or from what was kept.
    pub fn new(of: &'a LinearProbe, cached: Option<Features>, kept: Option<&Kept>) -> Result<Self> {
        let LinearProbe {
            config, protocol, ..
        } = of;
        let probe = Probe {
            taps: protocol.taps.len().max(1),
            rates: protocol.base_rates.len(),
            classes: of.train.classes().len(),
            dim: config.model.features(),
            batch_norm: protocol.batch_norm,
        };
        let augment = augmentation(config, protocol.crop_min);
        let source = match cached {
            Some(_) => Source::Features,
            None => Source::Crops(config, &augment, &protocol.taps),
        };
        let mut program = probe_step::build(&probe, protocol.batch, source)?;
        let compile = |program: &programs::Program| -> Result<Executable> {
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
        let blank = protocol.blank();
        let mut state = probe_step::initial_state(&probe, config.seed);
        let found = match kept {
            Some(kept) => kept.newest(&blank)?,
            None => None,
        };
        let (epochs, classifiers) = match found {
            Some(found) => {
                for array in &mut state {
                    let same = |tensor: &&HostTensor| {
                        tensor.name == array.name && tensor.data.len() == array.data.len()
                    };
                    let tensor = found.tensors.iter().find(same);
                    let tensor = tensor.with_context(|| {
                        format!("the probe's kept state has no {} of this size", array.name)
                    })?;
                    array.data.clone_from(&tensor.data);
                }
                let epochs = u32::try_from(found.epochs).unwrap_or(u32::MAX);
                if epochs > protocol.epochs {
                    bail!(
                        "the probe's kept state says {} epochs, of {}: delete its folder, or give \
                         another one with --out",
                        found.epochs,
                        protocol.epochs
                    );
                }
                tracing::info!("goes on after epoch {epochs}");
                (epochs, found.classifiers)
            }
            None => (0, blank),
        };
        let feed = match cached {
            Some(features) => Feed::cached(features, protocol.batch, config.seed)?,
            None => Feed::decoded(&of.train, config, protocol, epochs)?,
        };
        Ok(Self {
            of,
            probe,
            step,
            predict,
            state: state
                .into_iter()
                .map(|array| of.upload(&array.data, array.shape))
                .collect::<Result<_>>()?,
            inputs: program.graph.inputs.split_off(program.state),
            steps_per_epoch: feed.steps_per_epoch(),
            feed,
            epochs,
            classifiers,
        })
    }

    /// Epochs done.
    pub fn epochs(&self) -> u32 {
        self.epochs
    }

    /// What each classifier has come to after them.
    pub fn classifiers(&self) -> &[Classifier] {
        &self.classifiers
    }

    /// The state on the host.
    pub fn state(&self) -> Result<Epochs> {
        let tensor = |(array, buffer): (HostArray, &Buffer)| {
            Ok(HostTensor {
                name: array.name,
                dtype: Dtype::F32,
                shape: array.shape.dims().to_vec(),
                data: buffer.to_host()?,
            })
        };
        let arrays = probe_step::initial_state(&self.probe, self.of.config.seed).into_iter();
        Ok(Epochs {
            epochs: self.epochs.into(),
            tensors: arrays.zip(&self.state).map(tensor).collect::<Result<_>>()?,
            classifiers: self.classifiers.clone(),
        })
    }

    /// One epoch more.
    pub fn epoch(
        &mut self,
        backbone: &[(&str, &Buffer)],
        held_out: Option<&Features>,
    ) -> Result<()> {
        let of = self.of;
        let epoch = self.epochs;
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
        let of_rate = self.classifiers[..self.probe.rates].iter();
        let lr = of_rate.map(|one| schedule.lr(one.peak, epoch.into()) as f32);
        let lr: Vec<u8> = lr.flat_map(f32::to_le_bytes).collect();
        let lr = of.upload(&lr, lr_input.value.shape)?;

        let mut means = Means::new(self.probe.classifiers());
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
        means.tell(&mut self.classifiers, held_out.as_deref());
        self.epochs += 1;
        let best = in_words(&self.classifiers);
        tracing::info!("epoch {} of {epochs}: {best}", self.epochs);
        Ok(())
    }

    /// For each classifier, the percentage that it is right about.
    fn accuracies(&self, features: &Features) -> Result<Vec<f64>> {
        let predicted = self.predict(features)?;
        let classifiers = self.probe.classifiers();
        let mut right = vec![0usize; classifiers];
        for (row, actual) in predicted.chunks_exact(classifiers).zip(&features.labels) {
            for (count, class) in right.iter_mut().zip(row) {
                *count += usize::from(class == actual);
            }
        }
        let percent = |right| 100.0 * right as f64 / features.labels.len() as f64;
        Ok(right.into_iter().map(percent).collect())
    }

    /// The classes that the classifiers say, one for each of them, picture by
    /// picture.
    pub fn predict(&self, features: &Features) -> Result<Vec<u32>> {
        let of = self.of;
        let width = 4 * features.dim;
        let shape = Shape::new(DType::F32, &[QUERIES, features.dim]);
        let variables = &self.state[..self.probe.specs().len()];
        let classifiers = self.probe.classifiers();
        let mut predicted = Vec::with_capacity(features.labels.len() * classifiers);
        for chunk in features.bytes.chunks(QUERIES * width) {
            let mut padded = chunk.to_vec();
            padded.resize(QUERIES * width, 0);
            let queries = of.upload(&padded, shape)?;
            let arguments = variables.iter().chain([&queries]).map(Arg::Borrow);
            let run = self.predict.execute(vec![arguments.collect()])?;
            let bytes = run.buffers[0][0].to_host()?;
            let count = chunk.len() / width * classifiers;
            let words = bytes.as_chunks().0.iter().take(count);
            predicted.extend(words.map(|word| u32::from_le_bytes(*word)));
        }
        Ok(predicted)
    }
}

/// Sums of an epoch's metrics: losses, then accuracies.
struct Means {
    sums: Vec<f64>,
    steps: f64,
}

impl Means {
    fn new(classifiers: usize) -> Self {
        Self {
            sums: vec![0.0; 2 * classifiers],
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

    /// What each classifier has come to.
    fn tell(&self, classifiers: &mut [Classifier], held_out: Option<&[f64]>) {
        let (losses, right) = self.sums.split_at(classifiers.len());
        for (at, one) in classifiers.iter_mut().enumerate() {
            one.held_out_top1 = held_out.map(|all| all[at]);
            one.train_top1 = right[at] / self.steps;
            one.train_loss = losses[at] / self.steps;
        }
    }
}

/// The best classifier so far.
fn in_words(all: &[Classifier]) -> String {
    let Ok(best) = choose(all) else {
        return "all classifiers have diverged".into();
    };
    let best = &all[best];
    let place = best.features.as_ref().map(|name| format!("{name}, "));
    let place = place.unwrap_or_default();
    let mut text = format!(
        "{place}base lr {}: loss {:.3}, {:.2}% of the training pictures",
        best.base, best.train_loss, best.train_top1
    );
    if let Some(held_out) = best.held_out_top1 {
        text += &format!(
            ", {held_out:.2}% of the held-out ones (the best of {})",
            all.len()
        );
    }
    text
}

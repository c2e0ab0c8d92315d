//! What a resolved configuration must satisfy. Each message names the keys,
//! what was found, what was expected and, where it can, the nearest values
//! that would do.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

use anyhow::Result;
use serde::Serialize;

use super::RunConfig;
use super::schedule::{Length, Warmup};
use crate::bad_input;

/// Steps and other counts that must stay exact in f64 and far from overflow.
const MOST_STEPS: u64 = 1 << 40;
const MOST_PICTURES: usize = 1 << 32;

/// How an enumeration's value is written in JSON, without the quotes.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

impl RunConfig {
    /// # Errors
    /// The first thing that is wrong, as [`crate::error::BadInput`].
    pub(super) fn check(&self) -> Result<()> {
        within("batch", self.batch, 1..=1 << 20)?;
        within("mesh.data", self.mesh.data, 1..=1 << 16)?;
        let deadline = self.mesh.deadline_seconds as usize;
        within("mesh.deadline_seconds", deadline, 1..=1 << 30)?;
        if !self.batch.is_multiple_of(self.mesh.data) {
            return Err(bad_input!(
                "`batch` ({}) is not divisible by `mesh.data` ({} devices); nearest batches that \
                 are: {}",
                self.batch,
                self.mesh.data,
                nearest_multiples(self.batch, self.mesh.data),
            ));
        }
        self.check_accumulate()?;
        self.check_model()?;
        self.check_method()?;
        self.check_optimizer()?;
        self.check_schedule()?;
        self.check_data()?;
        self.check_augment()?;
        self.check_compiler()?;
        self.check_intervals()
    }

    fn check_accumulate(&self) -> Result<()> {
        let on_each = self.batch / self.mesh.data;
        within("accumulate", self.accumulate, 1..=1 << 20)?;
        if on_each.is_multiple_of(self.accumulate) {
            return Ok(());
        }
        let divides = |k: &usize| on_each.is_multiple_of(*k);
        let below = (1..self.accumulate.min(on_each)).rev().find(divides);
        let above = (self.accumulate..=on_each).find(divides);
        let nearest: Vec<String> = [below, above]
            .into_iter()
            .flatten()
            .map(|k| k.to_string())
            .collect();
        Err(bad_input!(
            "`accumulate` ({}) does not divide the {on_each} pictures of `batch` ({}) that each of \
             `mesh.data` ({}) devices holds; nearest that do: {}",
            self.accumulate,
            self.batch,
            self.mesh.data,
            nearest.join(", "),
        ))
    }

    fn check_schedule(&self) -> Result<()> {
        let s = &self.schedule;
        match s.length {
            Length::Epochs(epochs) => {
                positive("schedule.epochs", epochs)?;
                within("schedule.epochs", epochs, 0.0..=1e6)?;
            }
            Length::Steps(steps) => within("schedule.total_steps", steps, 1..=MOST_STEPS)?,
        }
        match s.warmup {
            Warmup::Epochs(epochs) => within("schedule.warmup_epochs", epochs, 0.0..=1e6)?,
            Warmup::Steps(steps) => within("schedule.warmup_steps", steps, 0..=MOST_STEPS)?,
        }
        // Mixed units are compared once the size of the data is known.
        let too_long = match (s.length, s.warmup) {
            (Length::Epochs(total), Warmup::Epochs(warmup)) => warmup > total,
            (Length::Steps(total), Warmup::Steps(warmup)) => warmup > total,
            _ => false,
        };
        if too_long {
            return Err(bad_input!(
                "{} is longer than the whole run, {}; shorten the warm-up",
                s.warmup,
                s.length
            ));
        }
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        let d = &self.data;
        let paths = [
            ("path", Some(&d.path)),
            ("test", d.test.as_ref()),
            ("labelled", d.labelled.as_ref()),
        ];
        for (key, path) in paths {
            if path.is_some_and(String::is_empty) {
                return Err(bad_input!(
                    "`data.{key}` is empty; expected a path or \"synthetic\""
                ));
            }
        }
        let s = &d.synthetic;
        within("data.synthetic.classes", s.classes, 1..=10_000)?;
        within("data.synthetic.images", s.images, 1..=MOST_PICTURES)?;
        within(
            "data.synthetic.test_images",
            s.test_images,
            0..=MOST_PICTURES,
        )?;
        within("data.synthetic.size", s.size, 8..=4096)?;
        if let Some(workers) = d.workers {
            within("data.workers", workers, 1..=1024)?;
        }
        within("data.prefetch", d.prefetch, 1..=1024)?;
        within("data.corrupt_limit", d.corrupt_limit, 0.0..=1.0)
    }

    fn check_augment(&self) -> Result<()> {
        let a = &self.augment;
        positive("augment.crop_min", a.crop_min)?;
        within("augment.crop_min", a.crop_min, 0.0..=1.0)?;
        // Hue turns by at most half a circle either way.
        for (index, (&strength, most)) in a.jitter.iter().zip([1.0, 1.0, 1.0, 0.5]).enumerate() {
            within(&format!("augment.jitter[{index}]"), strength, 0.0..=most)?;
        }
        for (key, p) in [
            ("jitter_p", a.jitter_p),
            ("gray_p", a.gray_p),
            ("flip_p", a.flip_p),
            ("erase_p", a.erase_p),
            ("blur_p[0]", a.blur_p[0]),
            ("blur_p[1]", a.blur_p[1]),
            ("solarize_p[0]", a.solarize_p[0]),
            ("solarize_p[1]", a.solarize_p[1]),
        ] {
            within(&format!("augment.{key}"), p, 0.0..=1.0)?;
        }
        if let Some(r) = a.rand_augment {
            within("augment.rand_augment.operations", r.operations, 0..=16)?;
            let magnitude = "augment.rand_augment.magnitude";
            within(magnitude, r.magnitude, 0.0..=10.0)?;
            let std = "augment.rand_augment.magnitude_std";
            within(std, r.magnitude_std, 0.0..=10.0)?;
        }
        let with_labels = self.method.supervised.is_some();
        if !with_labels && (a.rand_augment.is_some() || a.erase_p > 0.0) {
            return Err(bad_input!(
                "`augment.rand_augment` and `augment.erase_p` are of training with labels, and \
                 `method.name` is \"{}\"; leave them out",
                word(&self.method.name)
            ));
        }
        let [low, high] = a.blur_sigma;
        positive("augment.blur_sigma[0]", low)?;
        within("augment.blur_sigma[1]", high, low..=100.0)?;
        for index in 0..3 {
            within(&format!("augment.mean[{index}]"), a.mean[index], 0.0..=1.0)?;
            positive(&format!("augment.std[{index}]"), a.std[index])?;
        }
        Ok(())
    }

    fn check_compiler(&self) -> Result<()> {
        if let Some(share) = self.gpu.memory_fraction {
            positive("gpu.memory_fraction", share)?;
            within("gpu.memory_fraction", share, 0.0..=1.0)?;
        }
        for (name, value) in &self.compiler_options {
            if !name.starts_with("xla_") {
                return Err(bad_input!(
                    "`compiler_options.{name}` is no option of XLA: those begin with xla_"
                ));
            }
            if value.is_object() || value.is_array() || value.is_null() {
                return Err(bad_input!(
                    "`compiler_options.{name}` is {value}; expected true, false, a number or text"
                ));
            }
        }
        Ok(())
    }

    fn check_intervals(&self) -> Result<()> {
        let (c, m, e) = (&self.checkpoint, &self.monitor, &self.eval);
        within("checkpoint.every_steps", c.every_steps, 1..=MOST_STEPS)?;
        within("checkpoint.keep_last", c.keep_last, 1..=1_000_000)?;
        if let Some(keep) = c.keep_every {
            within("checkpoint.keep_every", keep, 1..=MOST_STEPS)?;
            if !keep.is_multiple_of(c.every_steps) {
                return Err(bad_input!(
                    "`checkpoint.keep_every` ({keep}) is not a multiple of \
                     `checkpoint.every_steps` ({}), so no such checkpoint would be written",
                    c.every_steps
                ));
            }
        }
        within("monitor.knn_every", m.knn_every, 0..=MOST_STEPS)?;
        within("monitor.knn_k", m.knn_k, 1..=1 << 20)?;
        positive("monitor.knn_temperature", m.knn_temperature)?;
        if let Some(queue) = m.queue {
            within("monitor.queue", queue, 0..=1 << 24)?;
            if queue > 0 && queue < self.batch {
                return Err(bad_input!(
                    "`monitor.queue` ({queue}) is smaller than one `batch` ({}); make it larger, \
                     or 0 for no monitor",
                    self.batch
                ));
            }
        }
        if let (Some(epochs), Some(steps)) = (e.every_epochs, e.every_steps) {
            return Err(bad_input!(
                "`eval.every_epochs` ({epochs}) and `eval.every_steps` ({steps}) are both given; \
                 keep one and set the other to null"
            ));
        }
        if let Some(epochs) = e.every_epochs {
            positive("eval.every_epochs", epochs)?;
        }
        if let Some(steps) = e.every_steps {
            within("eval.every_steps", steps, 1..=MOST_STEPS)?;
        }
        within("eval.knn_k", e.knn_k, 1..=1 << 20)?;
        positive("eval.knn_temperature", e.knn_temperature)?;
        for (key, limit) in [("bank", e.bank_limit), ("query", e.query_limit)] {
            if let Some(limit) = limit {
                within(&format!("eval.{key}_limit"), limit, 1..=MOST_PICTURES)?;
            }
        }
        Ok(())
    }
}

pub(super) fn within<T>(key: &str, value: T, range: RangeInclusive<T>) -> Result<()>
where
    T: PartialOrd + Display + Debug,
{
    if range.contains(&value) {
        return Ok(());
    }
    Err(bad_input!(
        "`{key}` is {value}; expected {} to {}",
        range.start(),
        range.end()
    ))
}

pub(super) fn positive(key: &str, value: f64) -> Result<()> {
    if value > 0.0 {
        return Ok(());
    }
    Err(bad_input!("`{key}` is {value}; expected more than 0"))
}

/// The multiples of `unit` on either side of `value`.
pub(super) fn nearest_multiples(value: usize, unit: usize) -> String {
    let below = value / unit * unit;
    match below {
        0 => unit.to_string(),
        _ => format!("{below}, {}", below + unit),
    }
}

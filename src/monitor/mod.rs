//! Whether a run is healthy: detectors over the stream of its metrics.
//!
//! Training can fail in part while everything looks fine (Sec. 4 of the
//! paper). The detectors read what each step wrote to `metrics.jsonl`, give
//! [`Finding`]s in plain words, and end in one [`Verdict`]. They keep nothing
//! that is not in those lines: a resume feeds them the lines again. Pure: no
//! file, no clock. docs/monitors.md has thresholds and sources.

mod dips;
mod series;
mod spikes;
mod state;
mod verdict;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::config::RunConfig;

pub use verdict::{Health, Verdict};

use dips::Dips;
use spikes::Spikes;
use state::{Collapse, Divergence, Stall};

/// What the detectors have to know of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Pictures that the kNN monitor classifies at a time: they say how far
    /// its values scatter.
    pub batch: usize,
    /// Steps in which the learning rate rises.
    pub warmup_steps: u64,
}

impl Setting {
    pub fn new(config: &RunConfig, warmup_steps: u64) -> Self {
        Self {
            batch: config.batch,
            warmup_steps,
        }
    }

    /// Of a run's configuration as written in its folder, and its metrics;
    /// none if these do not say.
    fn of_run(config: &Value, lines: &[Map<String, Value>]) -> Option<Self> {
        let config = RunConfig::from_value(config.clone()).ok()?;
        let number = |key: &str| lines.last()?.get(key)?.as_f64();
        let per_epoch = (number("step")? / number("epoch")?).round() as u64;
        let schedule = config.schedule.resolve(per_epoch).ok()?;
        Some(Self::new(&config, schedule.warmup_steps))
    }
}

/// One line of metrics.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Steps done, from 1.
    pub step: u64,
    /// By name, in the line's order; NaN for what was not finite.
    values: Vec<(String, f64)>,
}

impl Reading {
    /// None for a line without a step.
    pub fn of(line: &Map<String, Value>) -> Option<Self> {
        let step = line.get("step")?.as_u64()?;
        let lost = line.get("nonfinite").and_then(Value::as_array);
        let is_lost = |key: &str| lost.is_some_and(|keys| keys.iter().any(|k| k == key));
        let values = line.iter().filter_map(|(key, value)| {
            let value = match is_lost(key) {
                true => f64::NAN,
                false => value.as_f64()?,
            };
            Some((key.clone(), value))
        });
        Some(Self {
            step,
            values: values.collect(),
        })
    }

    fn get(&self, name: &str) -> Option<f64> {
        let found = self.values.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| *value)
    }

    /// Names after `prefix` and values of what begins with it.
    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        let named = self.values.iter();
        named.filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, *value)))
    }
}

/// What sort of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    GradientSpike,
    KnnDip,
    Degradation,
    Collapse,
    Divergence,
    AtChance,
}

impl Kind {
    /// The kind of its event.
    pub fn name(self) -> &'static str {
        match self {
            Kind::GradientSpike => "gradient_spike",
            Kind::KnnDip => "knn_dip",
            Kind::Degradation => "degradation",
            Kind::Collapse => "collapse",
            Kind::Divergence => "divergence",
            Kind::AtChance => "at_chance",
        }
    }

    /// Whether nothing useful is learned any more.
    pub fn is_fatal(self) -> bool {
        matches!(self, Kind::Collapse | Kind::Divergence | Kind::AtChance)
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The step in which it was certain.
    pub step: u64,
    pub kind: Kind,
    /// What happened and what to try, for people.
    pub message: String,
    /// The numbers and names that show it.
    pub evidence: Map<String, Value>,
}

impl Finding {
    /// `evidence` is an object.
    fn new(step: u64, kind: Kind, message: String, evidence: Value) -> Self {
        let evidence = match evidence {
            Value::Object(evidence) => evidence,
            _ => Map::new(),
        };
        Self {
            step,
            kind,
            message,
            evidence,
        }
    }
}

/// All detectors over one run.
#[derive(Clone, Debug)]
pub struct Monitor {
    spikes: Spikes,
    dips: Dips,
    collapse: Collapse,
    divergence: Divergence,
    stall: Stall,
    /// Of the newest reading.
    step: u64,
}

impl Monitor {
    pub fn new(setting: Setting) -> Self {
        Self {
            spikes: Spikes::default(),
            dips: Dips::new(setting.batch),
            collapse: Collapse::default(),
            divergence: Divergence::default(),
            stall: Stall::new(setting.warmup_steps),
            step: 0,
        }
    }

    /// The detectors of a run after all its lines of metrics, from what is in
    /// its folder alone; none before the first step, and for a configuration
    /// that cannot be read.
    pub fn of_run(config: &Value, lines: &[Map<String, Value>]) -> Option<Self> {
        Some(Self::of_lines(Setting::of_run(config, lines)?, lines))
    }

    /// The detectors after all these lines of metrics.
    pub fn of_lines<'a>(
        setting: Setting,
        lines: impl IntoIterator<Item = &'a Map<String, Value>>,
    ) -> Self {
        let mut monitor = Self::new(setting);
        for reading in lines.into_iter().filter_map(Reading::of) {
            monitor.observe(&reading);
        }
        monitor
    }

    /// Takes the next step's metrics; gives what is now certain.
    pub fn observe(&mut self, reading: &Reading) -> Vec<Finding> {
        self.step = reading.step;
        let mut found: Vec<Finding> = Vec::new();
        found.extend(self.divergence.observe(reading));
        found.extend(self.collapse.observe(reading));
        found.extend(self.stall.observe(reading));
        found.extend(self.spikes.observe(reading));
        found.extend(self.dips.observe(reading));
        found
    }
}

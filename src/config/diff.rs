//! What differs between two configurations, and whether it changes the run.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::RunConfig;

/// What changing a key does to a run that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Another trajectory, state or metric: refused on resume.
    Run,
    /// The same computation laid out otherwise: the last bits may differ.
    Rounding,
    /// Logging, paths, intervals: the state stays bit-equal.
    Nothing,
}

/// The effect of each key or section that is not [`Effect::Run`].
const EFFECTS: &[(&str, Effect)] = &[
    ("about", Effect::Nothing),
    ("checkpoint", Effect::Nothing),
    ("data.path", Effect::Nothing),
    ("data.test", Effect::Nothing),
    ("data.labelled", Effect::Nothing),
    ("data.workers", Effect::Nothing),
    ("data.prefetch", Effect::Nothing),
    ("data.corrupt_limit", Effect::Nothing),
    ("monitor.knn_every", Effect::Nothing),
    ("eval.every_epochs", Effect::Nothing),
    ("eval.every_steps", Effect::Nothing),
    ("eval.at_start", Effect::Nothing),
    ("on_unhealthy", Effect::Nothing),
    ("monitor.in_step", Effect::Rounding),
    ("mesh.data", Effect::Rounding),
    ("mesh.deadline_seconds", Effect::Nothing),
    ("lowering", Effect::Rounding),
    ("accumulate", Effect::Rounding),
    ("crop_pass", Effect::Rounding),
    ("optimizer_sharding", Effect::Rounding),
    ("model.attention", Effect::Rounding),
    ("gpu", Effect::Nothing),
    ("deterministic", Effect::Rounding),
    ("compiler_options", Effect::Rounding),
];

/// One key in which two configurations differ; `null` where it is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub key: String,
    pub old: Value,
    pub new: Value,
    pub effect: Effect,
}

/// All differences, in the order of the keys.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<Difference> {
    let (old, new) = (leaves(old), leaves(new));
    let value = |leaves: &Map<String, Value>, key: &str| leaves.get(key).cloned();
    let only_new = new.keys().filter(|key| !old.contains_key(*key));
    old.keys()
        .chain(only_new)
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Difference {
            key: key.clone(),
            old: value(&old, key).unwrap_or_default(),
            new: value(&new, key).unwrap_or_default(),
            effect: effect(key),
        })
        .collect()
}

/// The differences for which a resume is refused.
pub fn diff_that_matters(old: &RunConfig, new: &RunConfig) -> Vec<Difference> {
    let mut all = differences(old, new);
    all.retain(|difference| difference.effect == Effect::Run);
    all
}

impl RunConfig {
    /// SHA-256, in hexadecimal, of all that changes the run: equal exactly
    /// when [`diff_that_matters`] is empty.
    pub fn fingerprint(&self) -> String {
        let mut all = leaves(self);
        all.retain(|key, _| effect(key) == Effect::Run);
        let text = serde_json::to_string(&all).expect("a map of JSON values is JSON");
        crate::hash::hex(&Sha256::digest(text))
    }
}

fn effect(key: &str) -> Effect {
    EFFECTS
        .iter()
        .find(|(prefix, _)| {
            key.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .map_or(Effect::Run, |(_, effect)| *effect)
}

/// Every value by its dotted path; arrays whole. Paths may move, but whether
/// the pictures are procedural, and which, is part of the run.
fn leaves(config: &RunConfig) -> Map<String, Value> {
    fn walk(value: Value, prefix: &str, leaves: &mut Map<String, Value>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let key = match prefix {
                        "" => key,
                        prefix => format!("{prefix}.{key}"),
                    };
                    walk(value, &key, leaves);
                }
            }
            value => {
                leaves.insert(prefix.to_owned(), value);
            }
        }
    }
    let mut all = Map::new();
    walk(config.to_value(), "", &mut all);
    if !config.data.is_synthetic() {
        all.retain(|key, _| !key.starts_with("data.synthetic."));
    }
    all
}

//! The results ledger: every number under docs/results, with all that it takes to
//! get it again.
//!
//! `results/ledger.jsonl` has one experiment a line ([`Entry`]). The pages under
//! docs/results are templates in results/ whose numbers are taken from it
//! ([`document`]); [`reproduce`] runs an experiment again and compares.

pub mod document;
pub mod reproduce;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::bad_input;
use crate::checkpoint::atomic;

/// A ledger is some pages of text.
const MAX_BYTES: u64 = 64 << 20;

/// An experiment: what was run, on what, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: String,
    pub what: String,
    /// Of numbers that are not this program's: where they are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Arguments of this program, one command after the other. `{data}`,
    /// `{seed}` and `{out}` stand for where the pictures lie, the seed, and the
    /// folder for runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Vec<String>>,
    /// The exit code of the last command: 3 for a run that must go wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exit: i32,
    /// The pictures that `{data}` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Pictures>,
    /// What one must know to compare a number with another's: k, temperature,
    /// layer, crop, mode, pictures.
    pub protocol: Map<String, Json>,
    pub numbers: BTreeMap<String, Number>,
    /// By seed; none of what was measured before there was a ledger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runs: BTreeMap<u64, Run>,
}

fn is_zero(code: &i32) -> bool {
    *code == 0
}

/// A data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    pub name: String,
    /// The training pictures' ([`crate::data::Dataset::fingerprint`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// One number of an experiment, for each seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    pub unit: String,
    /// Digits after the point that documents show.
    pub digits: usize,
    /// How far a reproduction may be off, in the number's unit: at least the
    /// spread over seeds, since another processor or plugin makes another run of
    /// the same seed.
    pub within: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Reading>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seeds: BTreeMap<u64, f64>,
}

/// Where a number is read, after the last command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Reading {
    /// A pointer into the JSON that it prints (RFC 6901).
    Json(String),
    /// A metric of its run at a step; with `since`, the mean over the steps after
    /// that one.
    Metric {
        key: String,
        step: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// The evidence of an event of its run at a step.
    Event {
        kind: String,
        key: String,
        step: u64,
    },
}

/// Where the numbers of a seed are from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// RFC 3339, UTC.
    pub date: String,
    pub seconds: f64,
    /// Fingerprints of the last run's configuration and training pictures, and the
    /// SHA-256 of its newest checkpoint's state.
    pub config: String,
    pub data: String,
    pub checkpoint: String,
    /// The plugin's package or file, the first digits of its SHA-256.
    pub plugin: String,
    pub machine: String,
    /// Of this crate.
    pub version: String,
}

/// Digits after the point that anyone wants to see.
const MOST_DIGITS: usize = 12;

impl Number {
    fn is_sound(&self) -> bool {
        let range = match self.read {
            Some(Reading::Metric { step, since, .. }) => since.unwrap_or(0) < step,
            _ => true,
        };
        range && self.digits <= MOST_DIGITS && self.within >= 0.0
    }

    /// The values, in the order of their seeds.
    pub fn values(&self) -> Vec<f64> {
        self.seeds.values().copied().collect()
    }
}

/// Mean of values; its standard error where there are several.
pub fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = |x: &f64| (x - mean).powi(2);
    let error = (values.len() > 1).then(|| {
        let variance = values.iter().map(square).sum::<f64>() / (count - 1.0);
        (variance / count).sqrt()
    });
    (mean, error)
}

/// The whole ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// # Errors
    /// [`bad_input!`] for a file that is not there or no ledger, naming the line.
    pub fn read(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|error| {
            bad_input!(
                "cannot read the ledger {}: {error}; run this in a clone of the repository, or \
                 give --ledger",
                path.display()
            )
        })?;
        if !found.is_file() || found.len() > MAX_BYTES {
            return Err(bad_input!("{} is no ledger", path.display()));
        }
        let text = fs::read_to_string(path)
            .map_err(|error| bad_input!("cannot read {}: {error}", path.display()))?;
        let mut ids = BTreeSet::new();
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let entry: Entry = serde_json::from_str(line)
                .map_err(|error| bad_input!("{}, line {}: {error}", path.display(), at + 1))?;
            for (name, number) in &entry.numbers {
                if !number.is_sound() {
                    return Err(bad_input!(
                        "{}, line {}: {name}: expected at most {MOST_DIGITS} digits, a bound of at \
                         least 0, and `since` below `step`",
                        path.display(),
                        at + 1
                    ));
                }
            }
            if !ids.insert(entry.id.clone()) {
                return Err(bad_input!(
                    "{}: two entries are {}",
                    path.display(),
                    entry.id
                ));
            }
            entries.push(entry);
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// # Errors
    /// [`bad_input!`] with the nearest id, if there is no such entry.
    pub fn get(&self, id: &str) -> Result<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.id == id)
            .ok_or_else(|| {
                let near = |entry: &&Entry| strsim::levenshtein(&entry.id, id);
                let near = self.entries.iter().min_by_key(near);
                let near = near.map_or(String::new(), |entry| {
                    format!("; the nearest is {}", entry.id)
                });
                bad_input!("{} has no entry {id}{near}", self.path.display())
            })
    }

    /// Puts an entry in the place of that of its id, and writes the file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(&mut self, entry: Entry) -> Result<()> {
        let id = entry.id.clone();
        let place = self.entries.iter_mut().find(|old| old.id == id);
        *place.with_context(|| format!("there is no entry {id}"))? = entry;
        let mut text = String::new();
        for entry in &self.entries {
            text += &serde_json::to_string(entry)?;
            text.push('\n');
        }
        atomic::write_file(&self.path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_the_deviation_over_the_root_of_the_count() {
        // Deviation of 1, 2, 3 is 1.
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0]);
        assert_eq!(mean, 2.0);
        assert!((error.unwrap() - 1.0 / 3f64.sqrt()).abs() < 1e-15);
        assert_eq!(mean_and_error(&[4.0]), (4.0, None));
    }

    #[test]
    fn damage_is_told_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let line = r#"{"id":"a","what":"b","protocol":{},"numbers":{}}"#;
        for (text, words) in [
            (format!("{line}\n{{"), "line 2"),
            (format!("{line}\n{line}\n"), "two entries are a"),
            (line.replace("what", "waht"), "unknown field `waht`"),
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", Ledger::read(&path).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        fs::write(&path, line).unwrap();
        let error = Ledger::read(&path).unwrap().get("b").unwrap_err();
        assert!(error.to_string().contains("the nearest is a"), "{error}");
    }
}

//! Running an experiment of the ledger again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value as Json;

use super::{Entry, Reading, Run, mean_and_error};
use crate::bad_input;
use crate::checkpoint::{self, Loaded, RunDir, utc};
use crate::data::{DataSpec, Dataset};
use crate::report::{read_events, read_metrics};

/// Where things are for the commands of an experiment.
#[derive(Clone, Debug)]
pub struct Places {
    /// The program.
    pub program: PathBuf,
    /// The pictures; none for experiments that bring their own.
    pub data: Option<String>,
    /// The folder for runs. What is finished in it is not run again.
    pub out: String,
}

/// A number as it is now, beside the ledger's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub number: String,
    pub unit: String,
    pub now: f64,
    /// The ledger's of this seed, else its mean; none if it has none yet.
    pub ledger: Option<f64>,
    pub difference: Option<f64>,
    pub within: f64,
    pub holds: bool,
}

/// What a seed gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub values: BTreeMap<String, f64>,
    pub run: Run,
    /// Run folders that had steps in them before.
    pub reused: Vec<PathBuf>,
}

/// Runs that are not run again.
#[derive(Default)]
struct Reused {
    folders: Vec<PathBuf>,
    /// What their steps took.
    seconds: f64,
}

impl Reused {
    fn of(folders: &[PathBuf]) -> Result<Self> {
        let mut found = Self::default();
        for folder in folders {
            if found.folders.contains(folder) || !folder.join("metrics.jsonl").is_file() {
                continue;
            }
            let lines = read_metrics(&RunDir::open(folder)?)?;
            let last = lines.last().and_then(|line| line.get("seconds")?.as_f64());
            if let Some(seconds) = last {
                found.seconds += seconds;
                found.folders.push(folder.clone());
            }
        }
        Ok(found)
    }
}

impl Entry {
    /// # Errors
    /// [`bad_input!`] for numbers that are not this program's, and for pictures
    /// that are not given or are others.
    pub fn check(&self, places: &Places) -> Result<()> {
        if let Some(source) = &self.source {
            return Err(bad_input!(
                "{} was not measured by this program and cannot be run again by it: {source}",
                self.id
            ));
        }
        let Some(pictures) = &self.data else {
            return Ok(());
        };
        let name = &pictures.name;
        let path = places
            .data
            .as_ref()
            .ok_or_else(|| bad_input!("{} needs the pictures of {name}: give --data", self.id))?;
        if let Some(expected) = &pictures.fingerprint {
            let spec = DataSpec {
                path: path.clone(),
                exif_orientation: true,
            };
            let found = Dataset::open_train(&spec)?.fingerprint()?;
            if found != *expected {
                return Err(bad_input!(
                    "the training pictures in {path} are not those of {name} that {} was measured \
                     on: their fingerprint is {found:.12}, expected {expected:.12}",
                    self.id
                ));
            }
        }
        Ok(())
    }

    /// Runs the commands for a seed and reads the numbers.
    ///
    /// # Errors
    /// If a command fails, or what it leaves has not the numbers.
    pub fn run(&self, places: &Places, seed: u64) -> Result<Outcome> {
        let folders = self.folders(places, seed);
        let reused = Reused::of(&folders)?;
        let began = Instant::now();
        let mut printed = Vec::new();
        for (at, command) in self.commands.iter().enumerate() {
            let arguments = filled(command, places, seed);
            let told = format!("xla-moco {}", arguments.join(" "));
            tracing::info!("{told}");
            let output = Command::new(&places.program)
                .args(&arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
                .with_context(|| format!("cannot run {}", places.program.display()))?;
            let expected = match at + 1 == self.commands.len() {
                true => self.exit,
                false => 0,
            };
            if output.status.code() != Some(expected) {
                bail!("{told}: {}, expected exit code {expected}", output.status);
            }
            printed = output.stdout;
        }
        let place = folders
            .last()
            .context("no command has --out or --checkpoint")?;
        // The newest checkpoint of a run, or one that was named.
        let loaded = checkpoint::open(place)?;
        let root = loaded.path.ancestors().nth(2);
        let last = RunDir::open(root.context("a checkpoint lies in a run")?)?;
        let mut values = BTreeMap::new();
        for (name, number) in &self.numbers {
            if let Some(reading) = &number.read {
                let value = read(reading, &printed, &last);
                values.insert(name.clone(), value.with_context(|| name.clone())?);
            }
        }
        Ok(Outcome {
            values,
            run: provenance(&loaded, reused.seconds + began.elapsed().as_secs_f64()),
            reused: reused.folders,
        })
    }

    /// The values beside the ledger's.
    pub fn compare(&self, seed: u64, values: &BTreeMap<String, f64>) -> Vec<Compared> {
        let compared = |(name, now): (&String, &f64)| {
            let number = &self.numbers[name];
            let mean = || (!number.seeds.is_empty()).then(|| mean_and_error(&number.values()).0);
            let ledger = number.seeds.get(&seed).copied().or_else(mean);
            let difference = ledger.map(|ledger| now - ledger);
            Compared {
                number: name.clone(),
                unit: number.unit.clone(),
                now: *now,
                ledger,
                difference,
                within: number.within,
                holds: difference.is_none_or(|apart| apart.abs() <= number.within),
            }
        };
        values.iter().map(compared).collect()
    }

    /// Takes the values of a seed as measured.
    pub fn record(&mut self, seed: u64, outcome: Outcome) {
        for (name, value) in outcome.values {
            if let Some(number) = self.numbers.get_mut(&name) {
                number.seeds.insert(seed, value);
            }
        }
        if let Some(pictures) = &mut self.data {
            pictures.fingerprint.get_or_insert(outcome.run.data.clone());
        }
        self.runs.insert(seed, outcome.run);
    }

    /// The run folders that the commands write or read, in their order.
    fn folders(&self, places: &Places, seed: u64) -> Vec<PathBuf> {
        let of = |command: &Vec<String>| {
            let arguments = filled(command, places, seed);
            let at = |name| arguments.iter().position(|argument| argument == name);
            let at = at("--out").or(at("--checkpoint"))?;
            arguments.get(at + 1).map(PathBuf::from)
        };
        self.commands.iter().filter_map(of).collect()
    }
}

fn filled(command: &[String], places: &Places, seed: u64) -> Vec<String> {
    let data = places.data.as_deref().unwrap_or_default();
    let one = |argument: &String| {
        argument
            .replace("{data}", data)
            .replace("{out}", &places.out)
            .replace("{seed}", &seed.to_string())
    };
    command.iter().map(one).collect()
}

fn read(reading: &Reading, printed: &[u8], run: &RunDir) -> Result<f64> {
    let found = match reading {
        Reading::Json(pointer) => {
            let json: Json = serde_json::from_slice(printed)
                .context("the last command prints no JSON (--json)")?;
            json.pointer(pointer).and_then(Json::as_f64)
        }
        Reading::Metric { key, step, since } => {
            let after = since.unwrap_or(step.saturating_sub(1));
            let lines = read_metrics(run)?;
            let in_range = |line: &&serde_json::Map<String, Json>| {
                let at = line.get("step").and_then(Json::as_u64);
                at.is_some_and(|at| at > after && at <= *step)
            };
            let of = lines.iter().filter(in_range);
            let values: Option<Vec<f64>> = of.map(|line| line.get(key)?.as_f64()).collect();
            let values = values.unwrap_or_default();
            (values.len() as u64 == step - after).then(|| mean_and_error(&values).0)
        }
        Reading::Event { kind, key, step } => {
            let events = read_events(run)?;
            let same = |event: &&crate::report::Event| event.kind == *kind && event.step == *step;
            let event = events.iter().rfind(same);
            event.and_then(|event| event.evidence.get(key)?.as_f64())
        }
    };
    found.filter(|value| value.is_finite()).with_context(|| {
        format!(
            "{} and what was printed have no {reading:?}",
            run.root().display()
        )
    })
}

/// Where a run's numbers are from.
fn provenance(loaded: &Loaded, seconds: f64) -> Run {
    let origin = &loaded.manifest.origin;
    let build = origin
        .plugin_build
        .get(..12)
        .unwrap_or(&origin.plugin_build);
    Run {
        date: utc(SystemTime::now()),
        seconds: seconds.round(),
        config: origin.config_fingerprint.clone(),
        data: origin.data_fingerprint.clone(),
        checkpoint: loaded.manifest.state_sha256.clone(),
        plugin: format!("{} {build}", origin.plugin_name),
        machine: machine(origin.device_count, origin.thread_count),
        version: origin.crate_version.clone(),
    }
}

/// This machine in words; no host's name.
fn machine(devices: u32, threads: u32) -> String {
    let cpuinfo = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{model}, mesh of {devices}, pool of {threads} threads")
}

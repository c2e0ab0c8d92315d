//! `metrics.jsonl`: the numbers of each step.

use serde_json::{Map, Value};

use anyhow::{Context, Result, ensure};

use super::jsonl::{self, Appender, step_of};
use crate::checkpoint::RunDir;

/// The metrics of one step: one line of `metrics.jsonl`, one TensorBoard
/// event. Every line has at least `step`, `epoch`, `loss`, `chance_loss`,
/// `lr`, `momentum`, `images_per_second`, `input_wait` (share of the time that
/// the device waited for input, 0 to 1); `knn_top1` (percent) where evaluated;
/// `seconds` is the time trained up to here, summed over resumes.
///
/// JSON has no NaN and no infinity: such a value is written as `null` and its
/// key is listed under `nonfinite`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    step: u64,
    line: Map<String, Value>,
    scalars: Vec<(String, f32)>,
}

impl Record {
    /// `step` counts from 1: the number of steps done. `epoch` is the
    /// fraction of passes over the data done by then.
    pub fn new(step: u64, epoch: f64) -> Self {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        let record = Record {
            step,
            line,
            scalars: Vec::new(),
        };
        record.f64("epoch", epoch)
    }

    /// Adds a value that the device computed, in the fewest decimals that
    /// read back as the same `f32`.
    pub fn f32(self, key: &str, value: f32) -> Self {
        let shortest: f64 = value.to_string().parse().unwrap_or(f64::NAN);
        self.add(key, shortest, value)
    }

    /// Adds a value that the host computed.
    pub fn f64(self, key: &str, value: f64) -> Self {
        self.add(key, value, value as f32)
    }

    fn add(mut self, key: &str, value: f64, scalar: f32) -> Self {
        if !value.is_finite() {
            let list = self.line.entry("nonfinite").or_insert(Value::Array(vec![]));
            if let Value::Array(keys) = list {
                keys.push(key.into());
            }
        }
        // A float that is not finite becomes null.
        self.line.insert(key.into(), value.into());
        self.scalars.push((key.into(), scalar));
        self
    }

    pub fn step(&self) -> u64 {
        self.step
    }

    /// What is written.
    pub fn line(&self) -> &Map<String, Value> {
        &self.line
    }

    /// The values by key, for TensorBoard; NaN and infinity as they are.
    pub fn scalars(&self) -> &[(String, f32)] {
        &self.scalars
    }
}

/// Appends to `metrics.jsonl`, exactly one line for each step.
pub struct MetricsWriter {
    lines: Appender,
    last_step: u64,
}

impl MetricsWriter {
    /// Opens the file of a run that goes on after `resume_step` (0: from the
    /// start). Lines of later steps are cut, and with them a torn last line.
    pub fn open(run: &RunDir, resume_step: u64) -> Result<Self> {
        let path = run.metrics_path();
        let (mut last, mut kept) = (0, 0);
        jsonl::cut(&path, |line| {
            let fits = step_of(line).is_some_and(|step| step > last && step <= resume_step);
            if fits {
                last = step_of(line).unwrap_or(last);
                kept += 1;
            }
            fits
        })?;
        if kept != resume_step {
            tracing::warn!(
                "{} has lines for {kept} of the {resume_step} steps before this resume",
                path.display()
            );
        }
        Ok(MetricsWriter {
            lines: Appender::open(&path)?,
            last_step: resume_step,
        })
    }

    /// Appends the line of the next step.
    ///
    /// # Errors
    /// A step that is not the next, or what the file system says.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        ensure!(
            record.step == self.last_step + 1,
            "metrics of step {} after those of step {}: each step has one line",
            record.step,
            self.last_step
        );
        self.lines.append(&record.line)?;
        self.last_step = record.step;
        Ok(())
    }

    /// A closure that makes all lines written before it is called survive a
    /// power failure. A checkpoint's job calls it, so that no line up to the
    /// checkpoint's step can be lost once the checkpoint is there.
    pub fn syncer(&self) -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
        let file = self.lines.handle()?;
        Ok(move || file.sync_data().context("cannot sync metrics.jsonl"))
    }
}

/// The lines of a run's metrics; torn or damaged ones are passed over.
pub fn read_metrics(run: &RunDir) -> Result<Vec<Map<String, Value>>> {
    jsonl::read(&run.metrics_path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        (folder, run)
    }

    fn steps(run: &RunDir) -> Vec<u64> {
        read_metrics(run)
            .unwrap()
            .iter()
            .filter_map(step_of)
            .collect()
    }

    #[test]
    fn one_object_a_line_with_short_floats() {
        let (_folder, run) = run();
        let mut metrics = MetricsWriter::open(&run, 0).unwrap();
        let record = Record::new(1, 0.25).f32("loss", 0.1).f64("lr", 1.5e-4);
        metrics.write(&record).unwrap();
        assert_eq!(
            fs::read_to_string(run.metrics_path()).unwrap(),
            "{\"step\":1,\"epoch\":0.25,\"loss\":0.1,\"lr\":0.00015}\n"
        );
        let value = read_metrics(&run).unwrap()[0]["loss"].as_f64().unwrap();
        assert_eq!((value as f32).to_bits(), 0.1f32.to_bits());
    }

    #[test]
    fn what_is_not_finite_is_null_and_named() {
        let (_folder, run) = run();
        let mut metrics = MetricsWriter::open(&run, 0).unwrap();
        let record = Record::new(1, 0.0)
            .f32("loss", f32::NAN)
            .f64("lr", f64::NEG_INFINITY)
            .f32("momentum", 0.99);
        metrics.write(&record).unwrap();
        let line = &read_metrics(&run).unwrap()[0];
        assert_eq!(line["loss"], Value::Null);
        assert_eq!(line["nonfinite"], serde_json::json!(["loss", "lr"]));
        assert_eq!(line["momentum"], 0.99);
        assert!(record.scalars()[1].1.is_nan());
    }

    #[test]
    fn each_step_once_and_in_order() {
        let (_folder, run) = run();
        let mut metrics = MetricsWriter::open(&run, 0).unwrap();
        metrics.write(&Record::new(1, 0.0)).unwrap();
        for wrong in [0, 1, 3] {
            assert!(metrics.write(&Record::new(wrong, 0.0)).is_err());
        }
        metrics.write(&Record::new(2, 0.0)).unwrap();
        metrics.syncer().unwrap()().unwrap();
        assert_eq!(steps(&run), [1, 2]);
    }

    /// Killed in the middle of a line, resumed from a checkpoint before it.
    #[test]
    fn a_resume_cuts_later_steps_and_a_torn_last_line() {
        let line = |step: u64| format!("{{\"step\":{step},\"loss\":1.0}}\n");
        let five: String = (1..=5).map(line).collect();
        for (tail, resume, expected) in [
            ("{\"step\":6,\"lo", 5, vec![1, 2, 3, 4, 5, 6]),
            // Torn just before its end of line: still no line.
            ("{\"step\":6}", 6, vec![1, 2, 3, 4, 5, 7]),
            ("", 5, vec![1, 2, 3, 4, 5, 6]),
            ("\0\0\0\0\n", 5, vec![1, 2, 3, 4, 5, 6]),
            ("{\"step\":5}\n[5]\n{}\n", 5, vec![1, 2, 3, 4, 5, 6]),
            ("{\"step\":6,\"lo", 3, vec![1, 2, 3, 4]),
            ("{\"step\":6,\"lo", 0, vec![1]),
        ] {
            let (_folder, run) = run();
            fs::write(run.metrics_path(), format!("{five}{tail}")).unwrap();
            let mut metrics = MetricsWriter::open(&run, resume).unwrap();
            metrics.write(&Record::new(resume + 1, 0.0)).unwrap();
            assert_eq!(steps(&run), expected, "{tail:?} {resume}");
            let text = fs::read_to_string(run.metrics_path()).unwrap();
            let kept: String = (1..=resume.min(5)).map(line).collect();
            assert!(
                text.starts_with(&kept),
                "the lines that stay are not touched"
            );
            assert_eq!(text.lines().count(), expected.len(), "nothing else stays");
        }
    }
}

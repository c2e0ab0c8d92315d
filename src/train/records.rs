//! What a run tells while it goes: metrics, events, TensorBoard, progress.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::Trained;
use super::clock::Clock;
use super::corrupt_list::CorruptList;
use super::folder::Folder;
use super::held_out::Accuracy;
use super::in_flight::Finished;
use super::pictures::Pictures;
use super::plan::Plan;
use crate::checkpoint::Saved;
use crate::config::RunConfig;
use crate::data::Corrupt;
use crate::methods;
use crate::monitor::{Monitor, Reading, Setting};
use crate::report::{
    EventLog, MetricsWriter, Progress, Record, Severity, StepReport, TensorBoard, read_metrics,
};

/// The metric that every program has.
const LOSS: &str = "loss";
const KNN: &str = "knn_top1";
/// The metrics that are there only where the batch was classified.
const CLASSIFIED: [&str; 2] = [KNN, "effective_rank"];

/// The kind of event of a picture that another stands in for.
const REPLACED: &str = "replaced_picture";

/// The writers of a run's folder. After a resume all of them go on right
/// after the checkpoint's step.
pub struct Records {
    metrics: MetricsWriter,
    board: TensorBoard,
    events: EventLog,
    corrupt: CorruptList,
    progress: Progress,
    monitor: Monitor,
    pub clock: Clock,
    config: RunConfig,
    plan: Plan,
    /// Steps whose metrics are written.
    written: u64,
}

impl Records {
    pub fn open(folder: &Folder, config: &RunConfig, plan: &Plan) -> Result<Self> {
        let run = &folder.run;
        let resume = folder.resume_step();
        let metrics = MetricsWriter::open(run, folder.step())?;
        let trained = match resume {
            // The lines after the checkpoint are cut by now.
            Some(_) => read_metrics(run)?,
            None => Vec::new(),
        };
        let seconds = trained
            .last()
            .and_then(|line| line.get("seconds")?.as_f64());
        let setting = Setting::new(config, plan.schedule.warmup_steps);
        let mut board = TensorBoard::create(run, resume)?;
        let as_text = format!("```json\n{:#}\n```", config.to_value());
        board.text(folder.step(), "config", &as_text)?;
        Ok(Self {
            metrics,
            board,
            events: EventLog::open(run, resume)?,
            corrupt: CorruptList::open(run, resume.is_some())?,
            progress: Progress::new(plan.stop),
            monitor: Monitor::of_lines(setting, &trained),
            clock: Clock::new(seconds.unwrap_or(0.0)),
            config: config.clone(),
            plan: plan.clone(),
            written: folder.step(),
        })
    }

    /// Steps whose metrics are written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the metrics of a step that is done, `names` being those of its
    /// values; gives its loss.
    pub fn step(&mut self, names: &[String], finished: &Finished) -> Result<f32> {
        let values = &finished.metrics;
        ensure!(
            names.len() == values.len(),
            "the step gave {} metrics, the program names {}",
            values.len(),
            names.len()
        );
        let value = |name: &str| {
            let place = names.iter().position(|n| n == name);
            place.map(|place| values[place])
        };
        let loss = value(LOSS).context("the program has no metric named loss")?;
        // NaN says that there was nothing to classify against.
        let classified = |value: &f32| value.is_finite() && self.plan.classifies(finished.step);
        let knn = value(KNN).filter(classified);

        let (step, update) = (finished.step, finished.step - 1);
        let (config, plan) = (&self.config, &self.plan);
        let took = self.clock.step(finished);
        let batch = config.batch as f64;
        let chance_loss = methods::chance_loss(config);
        let mut record = Record::new(step, plan.epoch(step))
            .f32(LOSS, loss)
            .f64("chance_loss", chance_loss)
            .f64("lr", plan.schedule.lr(config.peak_lr(), update))
            .f64("momentum", plan.schedule.momentum(&config.method, update))
            .f64("images_per_second", batch * took.steps_per_second())
            .f64("input_wait", took.input_wait())
            .f64("seconds", self.clock.seconds());
        for (name, value) in names.iter().zip(values) {
            let is_there = !CLASSIFIED.contains(&name.as_str()) || classified(value);
            if name != LOSS && is_there {
                record = record.f32(name, *value);
            }
        }
        self.metrics.write(&record)?;
        self.written = step;
        self.board.record(&record)?;
        let recent = self.clock.recent();
        self.progress.step(&StepReport {
            step,
            total: self.plan.stop,
            epoch: self.plan.epoch(step),
            loss,
            chance_loss: chance_loss as f32,
            knn_top1: knn,
            images_per_second: batch * recent.steps_per_second(),
            input_wait: recent.input_wait(),
        });
        if let Some(reading) = Reading::of(record.line()) {
            self.found(&reading)?;
        }
        Ok(loss)
    }

    /// Lets the detectors see a step, and tells what they find.
    fn found(&mut self, reading: &Reading) -> Result<()> {
        for finding in self.monitor.observe(reading) {
            let severity = match finding.kind.is_fatal() {
                true => Severity::Error,
                false => Severity::Warning,
            };
            let (kind, evidence) = (finding.kind.name(), Value::Object(finding.evidence));
            self.tell(finding.step, kind, severity, &finding.message, evidence)?;
        }
        Ok(())
    }

    /// What this process is about to do.
    pub fn started(&mut self, pictures: &Pictures) -> Result<()> {
        let (config, plan, step) = (&self.config, &self.plan, self.written);
        let begun = match step {
            0 => "starting".to_owned(),
            step => format!("going on after step {step}"),
        };
        let message = format!(
            "{begun}: {}, {} pictures ({}), {} a step",
            plan.length(config),
            pictures.train.len(),
            pictures.train.kind(),
            config.batch
        );
        let evidence = json!({
            "data": config.data.path,
            "pictures": pictures.train.len(),
            "classes": pictures.train.classes().len(),
            "total_steps": plan.schedule.total_steps,
            "stop": plan.stop,
        });
        self.tell(step, "started", Severity::Info, &message, evidence)
    }

    /// A closure that makes the metrics written so far survive a power
    /// failure.
    pub fn syncer(&self) -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
        self.metrics.syncer()
    }

    /// Logs something that happened after step `step`, and keeps it among the
    /// run's events. `evidence` is an object.
    pub fn tell(
        &mut self,
        step: u64,
        kind: &str,
        severity: Severity,
        message: &str,
        evidence: Value,
    ) -> Result<()> {
        match severity {
            Severity::Info => tracing::info!("{message}"),
            Severity::Warning => tracing::warn!("{message}"),
            Severity::Error => tracing::error!("{message}"),
        }
        self.keep(step, kind, severity, message, evidence)
    }

    /// Keeps something among the run's events, without a word.
    fn keep(
        &mut self,
        step: u64,
        kind: &str,
        severity: Severity,
        message: &str,
        evidence: Value,
    ) -> Result<()> {
        let evidence = match evidence {
            Value::Object(evidence) => evidence,
            _ => Map::new(),
        };
        self.events
            .append(step, kind, severity, message, evidence)?;
        match kind {
            // Pictures that cannot be decoded are in a list of their own.
            REPLACED => Ok(()),
            _ => {
                let text = format!("{kind}: {message}");
                self.board.text(step, "events", &text)
            }
        }
    }

    /// Held-out accuracy after step `step`.
    pub fn held_out(&mut self, step: u64, accuracy: &Accuracy) -> Result<()> {
        let Accuracy {
            measure,
            top1,
            protocol,
        } = accuracy;
        let name = measure.name();
        let message = format!("held-out {name} after step {step}: {top1:.1}% ({protocol})");
        let evidence = json!({ measure.key(): top1 });
        self.tell(step, measure.kind(), Severity::Info, &message, evidence)?;
        let key = format!("heldout_{}", measure.key());
        let record = Record::new(step, self.plan.epoch(step)).f64(&key, *top1);
        self.board.record(&record)
    }

    /// Pictures of step `step` that others stand in for: each is listed, and
    /// told once. The loader has warned of them.
    pub fn replaced(&mut self, step: u64, pictures: &[Corrupt]) -> Result<()> {
        for picture in self.corrupt.add(pictures)? {
            let message = format!("{} cannot be decoded: {}", picture.name, picture.error);
            let evidence = json!({ "picture": picture.name, "replacement": picture.replacement });
            self.keep(step, REPLACED, Severity::Warning, &message, evidence)?;
        }
        Ok(())
    }

    /// A checkpoint that was saved.
    pub fn saved(&mut self, saved: &Saved) -> Result<()> {
        let message = format!("saved the checkpoint of step {}", saved.step);
        tracing::debug!("{message}");
        let evidence = json!({ "bytes": saved.bytes, "deleted": saved.deleted });
        self.keep(saved.step, "checkpoint", Severity::Info, &message, evidence)
    }

    /// Notes down, as well as it can, what ended the run.
    pub fn failed(&mut self, error: &anyhow::Error) {
        let message = format!("{error:#}");
        if let Err(also) = self.keep(
            self.written,
            "failed",
            Severity::Error,
            &message,
            Value::Null,
        ) {
            tracing::debug!("the failure is not among the events: {also:#}");
        }
    }

    /// Ends the progress; tells what this process trained.
    pub fn finish(self) -> Trained {
        self.progress.finish();
        self.clock.trained(self.config.batch)
    }
}

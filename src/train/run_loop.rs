//! The loop itself.

use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Instant;

use anyhow::{Context, Error, Result};
use serde_json::json;

use super::End;
use super::feed::{self, Scalars};
use super::folder::Folder;
use super::hosts::{self, Heartbeat};
use super::in_flight::{Enqueued, Finished, InFlight, Late};
use super::memory::with_advice;
use super::pictures::Pictures;
use super::plan::Plan;
use super::records::Records;
use super::session::Session;
use super::signals::StopRequest;
use super::state::Copy;
use crate::checkpoint::{self, Retention, RunDir, Saver};
use crate::config::{OnUnhealthy, RunConfig};
use crate::data::{Batch, Loader};
use crate::error::Unhealthy;
use crate::pjrt::store::TimedOut;
use crate::programs::batch::STOP;
use crate::report::{Severity, read_events};

/// Steps enqueued at once: one runs, and the next is there when it is done.
const MAX_IN_FLIGHT: usize = 2;
/// What the names of the tensors that make features begin with.
const BASE_ENCODER: &str = "base_encoder.";
/// In an event: the step of a checkpoint that retention must leave.
const KEPT: &str = "kept_checkpoint";

/// A run under way.
pub struct RunLoop<'a> {
    config: &'a RunConfig,
    plan: &'a Plan,
    stop: &'a StopRequest,
    /// The run's folder, of all hosts.
    root: RunDir,
    session: Session,
    records: &'a mut Records,
    loader: Loader,
    heartbeat: Heartbeat,
    in_flight: InFlight,
    saver: Saver,
    /// A copy of the state whose step has no metrics line yet.
    to_save: Option<Copy>,
    /// Steps enqueued, from the run's first.
    step: u64,
    /// The newest step that is, or is being, saved.
    saved: Option<u64>,
    /// A loss was not finite.
    diverged: bool,
    /// All hosts have agreed to stop after this step.
    stop_after: Option<u64>,
}

impl<'a> RunLoop<'a> {
    pub fn new(
        config: &'a RunConfig,
        plan: &'a Plan,
        pictures: &Pictures,
        folder: &Folder,
        session: Session,
        records: &'a mut Records,
        stop: &'a StopRequest,
    ) -> Result<Self> {
        let hosts = &session.hosts;
        let step = folder.step();
        let kept = read_events(&folder.run)?.into_iter();
        let retention = Retention {
            keep_last: NonZeroUsize::new(config.checkpoint.keep_last)
                .context("checkpoint.keep_last is 0")?,
            keep_every: config.checkpoint.keep_every.and_then(NonZeroU64::new),
            pinned: kept
                .filter_map(|event| event.evidence.get(KEPT)?.as_u64())
                .collect::<BTreeSet<_>>(),
        };
        Ok(Self {
            config,
            plan,
            stop,
            root: RunDir::create(&folder.root)?,
            loader: feed::loader(
                config,
                &pictures.train,
                hosts.rows(config.batch),
                step..plan.stop,
            )?,
            heartbeat: Heartbeat::new(&folder.root, hosts.id, hosts.count)?,
            in_flight: InFlight::new(hosts::deadline(config))?,
            saver: Saver::new(&folder.run, session.origin.clone(), retention),
            session,
            records,
            to_save: None,
            step,
            saved: folder.resume_step(),
            diverged: false,
            stop_after: None,
        })
    }

    /// Trains to the plan's end or until a signal. Tells why it ended, and
    /// after which step; there is a checkpoint of that step.
    pub fn run(mut self) -> Result<(End, u64)> {
        let trained = self.train();
        match trained {
            Ok(()) => self.finish(),
            Err(error) => {
                let error = with_advice(error, self.config, &self.session.footprint);
                let is_late = error.chain().any(|cause| cause.is::<Late>());
                if is_late || self.session.hosts.are_apart() {
                    // The devices may wait for other hosts for ever: nothing may
                    // wait for them.
                    std::mem::forget(self);
                }
                Err(error)
            }
        }
    }

    fn train(&mut self) -> Result<()> {
        if self.step == 0 && self.plan.evaluates(0) && !self.stop.is_set() {
            self.evaluate()?;
        }
        self.records.clock.start();
        while self.step < self.plan.stop && !self.stops() {
            self.enqueue_step()?;
            let is_last = self.step == self.plan.stop;
            if self.plan.evaluates(self.step) && (is_last || !self.stop.is_set()) {
                self.collect(0)?;
                if let Err(error) = self.evaluate() {
                    return Err(self.saved_first(error));
                }
                self.records.clock.start();
            }
            if self.plan.saves(self.step) {
                self.begin_save()?;
            }
            self.collect(MAX_IN_FLIGHT)?;
        }
        self.save_last()
    }

    /// Whether a signal asks to stop here. Several hosts stop after the same
    /// step, which they learn from the metrics that all of them get.
    fn stops(&self) -> bool {
        match self.session.hosts.count {
            1 => self.stop.is_set(),
            _ => self.stop_after == Some(self.step),
        }
    }

    /// The next batch to the devices, and the step behind those under way.
    fn enqueue_step(&mut self) -> Result<()> {
        let update = self.step;
        let asked = Instant::now();
        let batch = self.next_batch()?;
        let session = &self.session;
        let rows = session.hosts.rows(self.config.batch);
        let mut scalars = Scalars::of(self.config, self.plan, update, &rows)?;
        scalars.stop = self.stop.is_set();
        let arguments = &session.program.graph.inputs[session.program.state..];
        let exchange = session.exchange.as_ref();
        let heartbeat = &mut self.heartbeat;
        let mut excused = || heartbeat.leader_evaluates();
        let devices = &session.devices;
        let inputs = feed::upload(
            self.config,
            arguments,
            devices,
            exchange,
            &batch,
            &scalars,
            &mut excused,
        )
        .map_err(|error| in_time(error, &self.heartbeat, update + 1, self.config))?;
        let input = asked.elapsed();

        // As many as allowed with this one.
        self.collect(MAX_IN_FLIGHT - 1)?;
        let at = Instant::now();
        let (metrics, done) = self.session.enqueue(&inputs)?;
        self.step = update + 1;
        self.in_flight.push(Enqueued {
            step: self.step,
            at,
            input,
            done,
            metrics: metrics.to_host_async()?,
        });
        self.heartbeat.beat(self.step);
        self.records.replaced(self.step, &batch.replaced)?;
        self.loader.recycle(batch);
        Ok(())
    }

    /// The pictures of the next step. What corrupt ones there are is listed
    /// also where they are too many.
    fn next_batch(&mut self) -> Result<Batch> {
        let next = self.loader.next();
        match next.context("the loader has no batch for this step")? {
            Ok(batch) => Ok(batch),
            Err(error) => {
                self.records
                    .replaced(self.step + 1, &self.loader.corrupt())?;
                Err(self.saved_first(error))
            }
        }
    }

    /// Writes the metrics of the steps that are done, waiting until at most
    /// `allowed` are under way; and saves what can now be saved.
    fn collect(&mut self, allowed: usize) -> Result<()> {
        loop {
            let heartbeat = &mut self.heartbeat;
            let taken = self
                .in_flight
                .take(allowed, &mut || heartbeat.leader_evaluates());
            let taken =
                taken.map_err(|error| in_time(error, &self.heartbeat, self.step, self.config))?;
            let Some(finished) = taken else {
                break;
            };
            self.heed_stop(&finished);
            let loss = self
                .records
                .step(&self.session.program.metrics, &finished)?;
            if !loss.is_finite() && !self.diverged {
                self.diverged = true;
                self.save_if_written()?;
                self.tell_divergence(finished.step, loss)?;
            }
        }
        self.save_if_written()?;
        if let Some(saved) = self.saver.poll()? {
            self.records.saved(&saved)?;
        }
        Ok(())
    }

    /// Reads whether any host wants to stop. All learn it from the same step;
    /// by then each has enqueued at most as many more as may be under way.
    fn heed_stop(&mut self, finished: &Finished) {
        let names = &self.session.program.metrics;
        let place = names.iter().position(|name| name == STOP);
        let value = place.and_then(|place| finished.metrics.get(place));
        let wants = value.is_some_and(|value| *value > 0.0);
        if wants && self.stop_after.is_none() {
            self.stop_after = Some(finished.step + MAX_IN_FLIGHT as u64);
        }
    }

    /// Saves the state after the last step, if that was not done yet.
    fn save_last(&mut self) -> Result<()> {
        self.collect(0)?;
        if self.step > 0 && self.saved != Some(self.step) {
            self.begin_save()?;
            self.save_if_written()?;
        }
        Ok(())
    }

    /// `error` is none of the state, which must not be lost with it.
    fn saved_first(&mut self, error: Error) -> Error {
        if let Err(also) = self.save_last() {
            tracing::error!("the state after step {} is lost: {also:#}", self.step);
        }
        error
    }

    /// Starts to copy the state; the steps go on.
    fn begin_save(&mut self) -> Result<()> {
        self.saved = Some(self.step);
        let session = &self.session;
        if !session.hosts.leads() {
            let part = match &session.gather {
                Some(gather) => {
                    let heartbeat = &mut self.heartbeat;
                    let mut excused = || heartbeat.leader_evaluates();
                    session.state.take_part(self.step, gather, &mut excused)
                }
                None => Ok(()),
            };
            return part.map_err(|error| in_time(error, &self.heartbeat, self.step, self.config));
        }
        // One that still waits for its metrics (checkpoints at every step).
        if self.to_save.is_some() {
            self.collect(0)?;
        }
        let session = &self.session;
        let copy = session.state.copy_out(self.step, session.gather.as_ref());
        let copy = copy.map_err(|error| in_time(error, &self.heartbeat, self.step, self.config))?;
        self.to_save = Some(copy);
        Ok(())
    }

    /// Hands a copy of the state to the saver, once all metrics up to its step
    /// are written: they are synced before the checkpoint gets its name.
    fn save_if_written(&mut self) -> Result<()> {
        let written = self.records.written();
        let Some(copy) = self.to_save.take_if(|copy| copy.step <= written) else {
            return Ok(());
        };
        let sync_metrics = self.records.syncer()?;
        let before = self.saver.save(move || {
            let snapshot = copy.wait()?;
            sync_metrics()?;
            Ok(snapshot)
        })?;
        before.map_or(Ok(()), |saved| self.records.saved(&saved))
    }

    /// Classifies the held-out pictures. No step is under way.
    fn evaluate(&mut self) -> Result<()> {
        let Some(held_out) = &self.session.held_out else {
            return Ok(());
        };
        let _reported = self.heartbeat.evaluating(self.step)?;
        let accuracy = held_out
            .evaluate(&self.session.state.under(BASE_ENCODER))
            .context("cannot classify the held-out pictures")?;
        self.records.held_out(self.step, &accuracy)
    }

    /// The first loss that is not finite. The newest checkpoint of which it is
    /// known that its state was sound is kept for good: later ones are of no
    /// use.
    fn tell_divergence(&mut self, step: u64, loss: f32) -> Result<()> {
        if let Some(saved) = self.saver.wait()? {
            self.records.saved(&saved)?;
        }
        // The loss of the step before was that of the state two steps ago.
        let saved = checkpoint::list(&self.root)?.into_iter().rev();
        let kept = saved
            .map(|(saved, _)| saved)
            .find(|&saved| saved + 1 < step);
        let hint = match kept {
            Some(kept) => {
                self.saver.pin(kept);
                format!("the checkpoint of step {kept} is kept")
            }
            None => "there is no sound checkpoint".to_owned(),
        };
        let frozen = match self.config.model.vit() {
            Some(_) => ", or model.patch_projection=frozen",
            None => "",
        };
        let message = format!(
            "the loss of step {step} is {loss}: the run has diverged; {hint}. A lower \
             optimizer.base_lr may help, or a longer warm-up{frozen}"
        );
        let evidence = json!({ "loss": loss.to_string(), KEPT: kept });
        self.records
            .tell(step, "non_finite_loss", Severity::Error, &message, evidence)?;
        match self.config.on_unhealthy {
            OnUnhealthy::Continue => Ok(()),
            OnUnhealthy::Stop => Err(Unhealthy(message).into()),
        }
    }

    fn finish(self) -> Result<(End, u64)> {
        if let Some(saved) = self.saver.finish()? {
            self.records.saved(&saved)?;
        }
        let (end, words) = match self.step >= self.plan.stop {
            true => (self.plan.end_at(self.step), "done"),
            false => (End::Interrupted, "stopped by a signal"),
        };
        let (step, total) = (self.step, self.plan.schedule.total_steps);
        let message = format!("{words}: {step} of {total} steps");
        let evidence = json!({ "corrupt": self.loader.corrupt().len() });
        self.records
            .tell(step, "ended", Severity::Info, &message, evidence)?;
        Ok((end, step))
    }
}

/// What is said of a step that waited for longer than the deadline: who was
/// heard of last, and when.
fn in_time(error: Error, heartbeat: &Heartbeat, step: u64, config: &RunConfig) -> Error {
    let (program, step) = match error.downcast_ref::<Late>() {
        Some(Late { program, step }) => (*program, *step),
        None if error.downcast_ref::<TimedOut>().is_some() => ("train_step", step),
        None => return error,
    };
    let silence = heartbeat.silence(program, step, hosts::deadline(config));
    error.context(silence)
}

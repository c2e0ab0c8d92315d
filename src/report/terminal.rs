//! Progress and logs on standard error.
//!
//! On a terminal progress is one live line; on a pipe, calm plain lines. Logs
//! and messages pass above the live line and never tear it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// At most one plain line in this time, but for what is news.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// All live lines of the process: every bar is added here, so that logs can
/// step around them.
pub fn screen() -> &'static MultiProgress {
    static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
    &SCREEN
}

/// What the loop tells after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps done, and to do in all.
    pub step: u64,
    pub total: u64,
    /// Passes over the data done.
    pub epoch: f64,
    pub loss: f32,
    /// The loss of a model that knows nothing.
    pub chance_loss: f32,
    /// Accuracy of the kNN monitor in percent, where it was evaluated.
    pub knn_top1: Option<f32>,
    pub images_per_second: f64,
    /// Share of the time that the device waited for input, 0 to 1.
    pub input_wait: f64,
}

/// The progress of a run.
pub struct Progress {
    /// `None` on a pipe.
    live: Option<ProgressBar>,
    pace: Pace,
    knn_top1: Option<f32>,
    last_plain: Option<Instant>,
    last_line: String,
}

impl Progress {
    /// `total` steps are to be done, in all.
    pub fn new(total: u64) -> Self {
        let live = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:10.green/dim} {wide_msg}")
                .expect("a valid template")
                .progress_chars("━╸─");
            screen().add(ProgressBar::new(total).with_style(style))
        });
        Progress {
            live,
            pace: Pace::default(),
            knn_top1: None,
            last_plain: None,
            last_line: String::new(),
        }
    }

    /// Shows a step, on a pipe only now and then: the first, the last, each
    /// new kNN value, else one in ten seconds.
    pub fn step(&mut self, report: &StepReport) {
        let now = Instant::now();
        self.pace.observe(report.step, now);
        self.knn_top1 = report.knn_top1.or(self.knn_top1);
        let left = report.total.saturating_sub(report.step);
        self.last_line = line(report, self.knn_top1, self.pace.time_for(left));
        match &self.live {
            Some(bar) => {
                bar.set_message(self.last_line.clone());
                bar.set_position(report.step);
            }
            None => {
                let quiet = self.last_plain.map(|last| now - last);
                let news = report.knn_top1.is_some() || left == 0;
                if news || quiet.is_none_or(|quiet| quiet >= PLAIN_INTERVAL) {
                    self.message(&self.last_line);
                    self.last_plain = Some(now);
                }
            }
        }
    }

    /// Prints a line; it stays above the live one.
    pub fn message(&self, text: &str) {
        print_above(format!("{text}\n").as_bytes());
    }

    /// Ends the progress; the last line stays.
    pub fn finish(mut self) {
        if let Some(bar) = self.live.take() {
            bar.finish_and_clear();
            if !self.last_line.is_empty() {
                self.message(&self.last_line);
            }
        }
    }
}

impl Drop for Progress {
    /// On the way out of an error no live line stays in the message's way.
    fn drop(&mut self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}

/// Standard error that is closed is no reason to end a run.
fn print_above(bytes: &[u8]) {
    screen().suspend(|| {
        let _ = io::stderr().lock().write_all(bytes);
    });
}

/// What matters most comes first: a narrow terminal cuts the end.
pub(super) fn line(report: &StepReport, knn_top1: Option<f32>, left: Option<Duration>) -> String {
    let mut parts = vec![
        format!("step {}/{}", report.step, report.total),
        format!("loss {:.3} (chance {:.3})", report.loss, report.chance_loss),
    ];
    parts.extend(knn_top1.map(|percent| format!("kNN {percent:.1}%")));
    if let Some(left) = left.filter(|_| report.step < report.total) {
        parts.push(format!("{} left", duration(left)));
    }
    parts.push(format!("{:.0} img/s", report.images_per_second));
    parts.push(format!("input wait {:.0}%", 100.0 * report.input_wait));
    parts.push(format!("epoch {:.1}", report.epoch));
    parts.join("  ")
}

/// As people say it: `45s`, `3m 05s`, `2h 07m`, `4d 03h`.
pub(super) fn duration(time: Duration) -> String {
    let s = time.as_secs_f64().round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// A running mean of the time that a step takes. The first step seen only
/// starts the clock: the time before it is start-up.
#[derive(Default)]
struct Pace {
    last: Option<(u64, Instant)>,
    /// Exponentially weighted sums of seconds and of steps.
    seconds: f64,
    steps: f64,
}

impl Pace {
    /// How many steps the mean reaches back, about.
    const MEMORY: f64 = 50.0;

    fn observe(&mut self, step: u64, now: Instant) {
        if let Some((last_step, last_time)) = self.last
            && step > last_step
        {
            let steps = (step - last_step) as f64;
            let fade = (-steps / Self::MEMORY).exp();
            self.seconds = fade * self.seconds + (now - last_time).as_secs_f64();
            self.steps = fade * self.steps + steps;
        }
        self.last = Some((step, now));
    }

    fn time_for(&self, steps: u64) -> Option<Duration> {
        let mean = (self.steps > 0.0).then(|| self.seconds / self.steps)?;
        Duration::try_from_secs_f64(mean * steps as f64).ok()
    }
}

/// Sets up logs on standard error, once per process. `verbosity`: -1 warnings
/// only, 0 information, 1 debug, 2 everything; the variable `XLA_MOCO_LOG`
/// (`debug`, `xla_moco::pjrt=trace`) says it in more detail and wins. `json`
/// writes each log line as a JSON object.
///
/// # Errors
/// A value of `XLA_MOCO_LOG` that cannot be read (bad input).
pub fn init_logging(verbosity: i8, json: bool) -> Result<()> {
    let level = match verbosity {
        ..=-1 => "warn",
        0 => "info",
        1 => "debug",
        2.. => "trace",
    };
    let wanted = std::env::var("XLA_MOCO_LOG").unwrap_or_else(|_| level.into());
    let filter = EnvFilter::try_new(&wanted)
        .map_err(|error| crate::bad_input!("XLA_MOCO_LOG={wanted}: {error}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveProgress);
    let set = if json {
        logs.json().try_init()
    } else {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        logs.with_ansi(colour).event_format(Plain).try_init()
    };
    set.map_err(|error| anyhow::anyhow!(error))
        .context("logs are set up already")
}

/// Writes logs above the live line. The formatter writes an event at once.
struct AboveProgress;

impl<'a> MakeWriter<'a> for AboveProgress {
    type Writer = AboveProgress;

    fn make_writer(&'a self) -> Self::Writer {
        AboveProgress
    }
}

impl Write for AboveProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        print_above(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For people: information bare, else the level before it; where in the
/// program only from debug on.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let (word, colour) = match *meta.level() {
            Level::ERROR => ("error: ", "31"),
            Level::WARN => ("warning: ", "33"),
            Level::INFO => ("", ""),
            _ => (meta.target(), "2"),
        };
        if !word.is_empty() && out.has_ansi_escapes() {
            write!(out, "\x1b[{colour}m{word}\x1b[0m")?;
        } else {
            out.write_str(word)?;
        }
        if *meta.level() > Level::INFO {
            out.write_str(": ")?;
        }
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StepReport {
        StepReport {
            step: 120,
            total: 1560,
            epoch: 2.449,
            loss: 5.1234,
            chance_loss: 5.545,
            knn_top1: None,
            images_per_second: 812.4,
            input_wait: 0.031,
        }
    }

    #[test]
    fn the_line_says_all_of_it() {
        assert_eq!(
            line(&report(), Some(34.06), Some(Duration::from_secs(130))),
            "step 120/1560  loss 5.123 (chance 5.545)  kNN 34.1%  2m 10s left  812 img/s  \
             input wait 3%  epoch 2.4"
        );
        let last = StepReport {
            step: 1560,
            ..report()
        };
        let text = line(&last, None, Some(Duration::ZERO));
        assert!(!text.contains("kNN") && !text.contains("left"), "{text}");
    }

    #[test]
    fn durations_as_people_say_them() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.7, "1m 00s"),
            (185.0, "3m 05s"),
            (7650.0, "2h 07m"),
            (356_400.0, "4d 03h"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn pace_ignores_start_up_and_follows_a_change() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(10), None);
        // Resumed at step 1000 after a minute of compilation.
        pace.observe(1001, at(60.0));
        assert_eq!(pace.time_for(10), None);
        pace.observe(1002, at(60.5));
        pace.observe(1004, at(61.5));
        let close = |pace: &Pace, expected: f64| {
            let left = pace.time_for(10).unwrap().as_secs_f64();
            assert!(
                (left - expected).abs() < 0.01 * expected,
                "{left} for {expected}"
            );
        };
        close(&pace, 5.0);
        for i in 1..=500 {
            pace.observe(1004 + i, at(61.5 + 2.0 * i as f64));
        }
        close(&pace, 20.0);
    }
}

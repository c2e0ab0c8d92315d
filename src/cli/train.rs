//! `xla-moco train`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::options::Devices;
use super::{ConfigArgs, PjrtArgs, print, status};
use crate::train::{self, End, Job, Options, Outcome};

/// Pre-train a model, or go on with a run
///
/// Writes a run folder with the resolved configuration, metrics and
/// checkpoints. The same command again resumes from the newest checkpoint.
/// Ctrl-C finishes the step, saves and stops. Ends with a verdict on the run's
/// health, and exits with 3 if it has collapsed, diverged or stalled at chance.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco train --config configs/quickstart.json
  xla-moco train --config configs/quickstart.json --data ~/pictures --out runs/mine
  xla-moco train --config configs/quickstart.json --steps 120 --set checkpoint.every_steps=50")]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(flatten)]
    pub pjrt: PjrtArgs,

    /// The run folder; by default runs/ and the configuration's file name
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Stop after this step, with a checkpoint; the schedule stays as it is
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,

    /// Start from these weights in place of random ones: a file (.pth.tar,
    /// .safetensors), a run, or a folder of another tool
    ///
    /// The backbone goes into both encoders; heads too where the file has them.
    /// A folder that has a checkpoint already is resumed as ever.
    #[arg(long, value_name = "FILE|DIR")]
    pub continue_from: Option<PathBuf>,

    /// Where the hosts of one job meet: file:/shared/folder, or
    /// redis://HOST:PORT
    ///
    /// For GPUs of several machines: the same command on each, with its own
    /// --host-id. A TPU pod's hosts know each other. With --pjrt cpu the hosts
    /// simulate such a job: each runs the whole program, on rows that they
    /// exchange through the store. --out is a folder that all hosts share.
    #[arg(long, value_name = "STORE", requires_all = ["num_hosts", "host_id"])]
    pub coordinator: Option<String>,

    /// Hosts that train together
    #[arg(long, value_name = "N", requires = "coordinator")]
    pub num_hosts: Option<usize>,

    /// This host's number, from 0
    #[arg(long, value_name = "N", requires = "coordinator")]
    pub host_id: Option<usize>,
}

pub fn run(mut args: Args) -> Result<()> {
    if args.config.devices == Some(Devices::All) {
        // A client outside of the job knows of its own host only.
        let hosts = args.num_hosts.unwrap_or(1);
        let devices = hosts * train::all_devices(&args.pjrt.pjrt)?;
        args.config.devices = Some(Devices::Number(devices));
    }
    let job = match (args.coordinator, args.num_hosts, args.host_id) {
        (Some(coordinator), Some(hosts), Some(host)) => Some(Job {
            coordinator,
            hosts,
            host,
        }),
        _ => None,
    };
    let outcome = train::run(&Options {
        config: args.config.load()?,
        out: match args.out {
            Some(out) => out,
            None => default_out(&args.config.config)?,
        },
        pjrt: args.pjrt.pjrt,
        compile_cache: !args.pjrt.no_compile_cache,
        steps: args.steps,
        continue_from: args.continue_from,
        job,
    })?;
    print(&summary(&outcome, &args.config.config)?)?;
    status::or_unhealthy(&outcome.health)
}

fn default_out(config: &Path) -> Result<PathBuf> {
    let stem = config.file_stem().context("--config names no file")?;
    Ok(Path::new("runs").join(stem))
}

fn summary(outcome: &Outcome, config: &Path) -> Result<String> {
    let mut text = progress(outcome)?;
    let run = outcome.run.root().display();
    if outcome.end == End::Finished {
        let config = shell_word(&config.display().to_string());
        let run = shell_word(&run.to_string());
        // As it was called, which need not be on the PATH.
        let tool = std::env::args().next().unwrap_or_else(|| "xla-moco".into());
        let tool = shell_word(&tool);
        let test = match outcome.held_out[..] {
            [] => " --data LABELLED_PICTURES --test OTHERS",
            _ => "",
        };
        write!(
            text,
            "next:
  {tool} train --config {config} --data YOUR_PICTURES --out runs/mine   # your own folder
  {tool} knn --checkpoint {run}{test}   # classify held-out pictures
  {tool} export --config {config} --format stablehlo --out step.mlir   # read what ran
"
        )?;
    }
    Ok(text)
}

/// How far a run came, and how well.
pub(super) fn progress(outcome: &Outcome) -> Result<String> {
    let mut text = String::new();
    let (step, total) = (outcome.step, outcome.total_steps);
    let run = outcome.run.root().display();
    match (outcome.end, &outcome.trained) {
        // The progress has said so.
        (End::Finished, Some(_)) => {}
        (End::Finished, None) => writeln!(
            text,
            "this run is finished: {total} of {total} steps are done"
        )?,
        (End::Stopped, Some(_)) => writeln!(
            text,
            "stopped after step {step} of {total}, as --steps says; a larger --steps, or none, \
             goes on"
        )?,
        (End::Stopped, None) => writeln!(
            text,
            "nothing to do: {step} of {total} steps are done; a larger --steps, or none, goes on"
        )?,
        (End::Interrupted, _) if step == 0 => writeln!(
            text,
            "stopped by a signal before the first step; run the same command again to begin"
        )?,
        (End::Interrupted, _) => writeln!(
            text,
            "stopped by a signal after step {step} of {total}, and saved; run the same command \
             again to go on"
        )?,
    }
    let measure = outcome.measure.name();
    match outcome.held_out[..] {
        [] => {}
        [(at, only)] => writeln!(text, "held-out {measure}: {only:.1}% after step {at}")?,
        [(from, first), .., (at, last)] => writeln!(
            text,
            "held-out {measure}: {first:.1}% -> {last:.1}% (after step {from} and step {at})"
        )?,
    }
    if let Some(trained) = &outcome.trained {
        writeln!(
            text,
            "speed: {:.0} images/s, input wait {:.1}%",
            trained.images_per_second,
            100.0 * trained.input_wait
        )?;
    }
    writeln!(text, "health: {}", outcome.health)?;
    writeln!(text, "run folder: {run}")?;
    if outcome.trained.is_some() {
        writeln!(text, "report: {}", outcome.run.report_path().display())?;
    }
    Ok(text)
}

/// A word as a shell reads it back.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:+,@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn only_what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(shell_word("runs/mine-1"), "runs/mine-1");
        assert_eq!(shell_word("my run"), "'my run'");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }
}

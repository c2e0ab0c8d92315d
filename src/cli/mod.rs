//! The command line: one thin file per subcommand. Results go to stdout, logs
//! and errors to stderr.
//!
//! Exit codes: 0 done (also after a clean stop by signal), 1 the run failed,
//! 2 bad usage, configuration or data, 3 the verdict is that the run is
//! unhealthy.

mod bench;
mod compile;
mod configs;
mod convert;
mod data;
mod evaluation;
mod export;
mod features;
mod finetune;
mod inspect;
mod knn;
mod options;
pub mod plan;
mod plugins;
mod probe;
mod report;
mod reproduce;
mod show;
mod status;
mod table;
mod target;
mod train;
mod training_set;
mod watch;

pub use options::{ConfigArgs, PjrtArgs};

use std::io::{ErrorKind, Write};

use anyhow::{Context, Error, Result};
use clap::{Parser, Subcommand};

use crate::error::{BadInput, Unhealthy};
use crate::pjrt;

/// Pre-trains Vision Transformers without labels (MoCo v3), as one XLA program
/// that runs on TPU pods, GPUs and CPUs through PJRT plugins.
#[derive(Debug, Parser)]
#[command(
    name = "xla-moco",
    version,
    max_term_width = 100,
    after_help = "Start with: xla-moco train --config configs/quickstart.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Export(export::Args),
    Inspect(inspect::Args),
    Compile(compile::Args),
    Plan(plan::Args),
    Bench(bench::Args),
    Knn(knn::Args),
    Probe(probe::Args),
    Features(features::Args),
    Finetune(finetune::Args),
    Show(show::Args),
    Convert(convert::Args),
    Status(status::Args),
    Report(report::Args),
    Reproduce(reproduce::Args),
    Watch(watch::Args),
    Configs(configs::Args),
    /// Lists, installs and checks PJRT plugins.
    #[command(after_long_help = "Example:\n  xla-moco plugins install cpu")]
    Plugins(plugins::PluginsArgs),
    /// Makes, checks and downloads pictures.
    #[command(after_long_help = "Example:\n  xla-moco data check pictures")]
    Data(data::DataArgs),
}

/// The whole program: parses the arguments, runs the subcommand, prints an
/// error once, and ends the process with the exit code.
pub fn main() -> ! {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and usage errors to stderr; there is nothing
            // to be done if either is closed.
            let _ = error.print();
            end(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(cli.command) {
        Ok(()) => end(0),
        Err(error) => {
            let _ = std::io::stderr().write_all(in_words(&error).as_bytes());
            end(exit_code(&error))
        }
    }
}

/// Sets the process up, while it has one thread, and runs the subcommand.
fn run(command: Command) -> Result<()> {
    crate::report::init_logging(0, false)?;
    pjrt::quiet_plugin_logs()?;
    match command {
        Command::Train(args) => train::run(args),
        Command::Export(args) => export::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Knn(args) => knn::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Features(args) => features::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Show(args) => show::run(&args),
        Command::Convert(args) => convert::run(args),
        Command::Status(args) => status::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Reproduce(args) => reproduce::run(args),
        Command::Watch(args) => watch::run(&args),
        Command::Configs(args) => configs::run(args),
        Command::Plugins(args) => plugins::run(args),
        Command::Data(args) => data::run(&args),
    }
}

/// Ends the process without what libraries do at exit: plugins are never
/// unloaded, and one whose devices still wait for other hosts would be torn
/// down under its own threads.
fn end(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(code.into())
}

fn exit_code(error: &Error) -> u8 {
    let has = |wanted: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(wanted);
    if error.is::<Unhealthy>() || has(|cause| cause.is::<Unhealthy>()) {
        3
    } else if error.is::<BadInput>() || has(|cause| cause.is::<BadInput>()) {
        2
    } else {
        1
    }
}

/// The chain of an error, outermost first, one line each.
fn in_words(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text += &format!("  caused by: {cause}\n");
    }
    text
}

/// Writes a result to stdout. A reader that has gone away (`| head`) is no
/// error.
///
/// # Errors
/// If stdout cannot be written, for example to a full disk.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::CommandFactory;

    use super::*;
    use crate::bad_input;

    #[test]
    fn exit_codes_tell_whose_fault_it_is() {
        let cases = [
            (anyhow!("the device is gone"), 1),
            (bad_input!("no such key"), 2),
            (
                bad_input!("no such key")
                    .context("reading a file")
                    .context("starting"),
                2,
            ),
            (
                anyhow!("low level").context(BadInput("no such folder".into())),
                2,
            ),
            (
                Error::new(Unhealthy("collapsed".into())).context("at the end"),
                3,
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(exit_code(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn the_chain_is_printed_once_outermost_first() {
        let error = anyhow!("no space").context("cannot save").context("step 3");
        assert_eq!(
            in_words(&error),
            "error: step 3\n  caused by: cannot save\n  caused by: no space\n"
        );
    }

    #[test]
    fn every_subcommand_has_long_help_with_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has none", command.get_name());
        }
    }
}

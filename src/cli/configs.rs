//! `xla-moco configs`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::Value;

use super::{ConfigArgs, print};
use crate::bad_input;
use crate::config::{self, Effect, RunConfig};
use crate::programs::train_step::{self, TrainStep, TrainingSet};

/// Where configurations lie unless told otherwise.
const FOLDER: &str = "configs";
/// Folders below that folder; deeper ones are not searched.
const DEPTH: usize = 8;

/// List, show, compare and check configurations
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    after_long_help = "Examples:
  xla-moco configs list
  xla-moco configs show --config configs/quickstart.json --set batch=64
  xla-moco configs diff configs/quickstart.json runs/quickstart/config.json
  xla-moco configs schema > schema.json"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Check every configuration of the folder configs: short for `check`
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List configurations with their titles
    List {
        /// The folder to search
        #[arg(default_value = FOLDER)]
        folder: PathBuf,
    },
    /// Print a configuration as it resolves, with every default filled in
    Show {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the keys in which two resolved configurations differ
    Diff { old: PathBuf, new: PathBuf },
    /// Check files, or all files of folders: resolve each, and build its train
    /// step with gradients; exits with 2 if one is wrong
    Check {
        #[arg(default_value = FOLDER, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a configuration file, for editors
    Schema,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Some(Command::List { folder }) => list(&folder),
        Some(Command::Show { config }) => print(&pretty(&config.load()?.to_value())),
        Some(Command::Diff { old, new }) => diff(&old, &new),
        Some(Command::Check { paths }) => check(&paths),
        Some(Command::Schema) => print(&pretty(&config::schema())),
        // Without a subcommand, clap has seen to it that --check is there.
        None => check(&[PathBuf::from(FOLDER)]),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn list(folder: &Path) -> Result<()> {
    let files = files(folder)?;
    let width = files.iter().map(|file| file.display().to_string().len());
    let width = width.max().unwrap_or(0);
    let mut text = String::new();
    for file in &files {
        let config = RunConfig::load(file, &[])?;
        let about = |key: &str| config.about.get(key).and_then(Value::as_str);
        let title = about("title").unwrap_or("(no title)");
        writeln!(text, "{:width$}  {title}", file.display().to_string())?;
        if let Some(published) = about("published") {
            writeln!(text, "{:width$}  {published}", "")?;
        }
    }
    print(&text)
}

fn diff(old: &Path, new: &Path) -> Result<()> {
    let differences = config::differences(&RunConfig::load(old, &[])?, &RunConfig::load(new, &[])?);
    let mut text = String::new();
    for difference in &differences {
        let effect = match difference.effect {
            Effect::Run => "changes the run",
            Effect::Rounding => "may change the last bits",
            Effect::Nothing => "does not change the run",
        };
        writeln!(
            text,
            "{}: {} -> {} ({effect})",
            difference.key, difference.old, difference.new
        )?;
    }
    if differences.is_empty() {
        text += "no difference\n";
    }
    print(&text)
}

fn check(paths: &[PathBuf]) -> Result<()> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(files(path)?);
        } else {
            all.push(path.clone());
        }
    }
    let (mut text, mut wrong) = (String::new(), 0);
    for file in &all {
        let loaded = RunConfig::load(file, &[]);
        match loaded.and_then(|config| build(&config).map(|()| config)) {
            Ok(config) => {
                writeln!(text, "ok     {}", file.display())?;
                for warning in config.warnings() {
                    tracing::warn!("{}: {warning}", file.display());
                }
            }
            Err(error) => {
                wrong += 1;
                writeln!(text, "wrong  {error:#}")?;
            }
        }
    }
    print(&text)?;
    match wrong {
        0 => Ok(()),
        wrong => Err(bad_input!(
            "{wrong} of {} configurations are wrong",
            all.len()
        )),
    }
}

/// Builds, differentiates, verifies and emits the train step of a training
/// set of ImageNet's size.
fn build(config: &RunConfig) -> Result<()> {
    train_step::build(&TrainStep::of_run(config, TrainingSet::IMAGENET))?.text();
    Ok(())
}

/// The JSON files below a folder, sorted. A name that begins with `_` is a
/// base for others and no configuration of its own.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|error| bad_input!("cannot list the folder {}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("in {}", folder.display()))?
                .path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(['_', '.']) {
                continue;
            }
            if path.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            } else if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(bad_input!(
            "no .json file in the folder {}",
            folder.display()
        ));
    }
    found.sort();
    Ok(found)
}

//! `xla-moco show`.

mod gather;
mod pairs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::evaluation::{self, Labels, Sets, lines, set_lines};
use super::{PjrtArgs, print};
use crate::bad_input;
use crate::config::Override;
use crate::report::show::{self, Show};
use gather::Gathered;

/// Write one page of pictures: what a checkpoint makes of them
///
/// For random test pictures their nearest neighbours among the training pictures
/// and the attention of the class token in the last block; a plane of test
/// features, coloured by class; and training pictures beside the views that a
/// step of the run sees of them. One file that needs nothing else, of at most
/// about 5 MB.
///
/// Features are as for `knn`. Pictures need no labels here; what needs classes is
/// then left out.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco show --checkpoint runs/quickstart
  xla-moco show --checkpoint runs/mine --data pictures/train --test pictures/test \\
      --pictures 12 --neighbours 5 --seed 1 --out mine.html
  xla-moco show --checkpoint runs/imagenet --bank 20000 --step 5000")]
pub struct Args {
    /// A run folder (its newest checkpoint) or one checkpoint
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub checkpoint: PathBuf,

    /// Training pictures, best labelled; by default those of the run
    #[arg(long, value_name = "TRAIN")]
    pub data: Option<String>,

    /// Test pictures; by default the test split that belongs to the training
    /// pictures
    #[arg(long, value_name = "TEST")]
    pub test: Option<String>,

    /// The page; by default show.html in the run's folder, or beside the
    /// checkpoint where that was given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Random test pictures, and as many augmented pairs
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub pictures: u32,

    /// Which random pictures
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Neighbours of each
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub neighbours: u32,

    /// Look for neighbours among so many training pictures, drawn from all; by
    /// default among all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub bank: Option<u32>,

    /// Test pictures on the map, at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=2000))]
    pub points: u32,

    /// The step of the run whose augmented pairs are shown, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    pub step: u64,

    /// Set one key of the run's configuration, such as data.workers=4
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<Override>,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

/// A checkpoint with one pair of sets.
type Subject = evaluation::Subject<Sets>;

/// # Errors
/// [`bad_input!`] for a checkpoint, a configuration or data that cannot be
/// used, or fewer pictures than asked for; the plugin's errors.
pub fn run(args: &Args) -> Result<()> {
    let subject = Subject::of(&args.checkpoint, &args.set, |config| {
        let (data, test) = (args.data.as_ref(), args.test.as_ref());
        evaluation::open(config, data, test, Labels::Optional)
    })?;
    let data = &subject.data;
    let short = |what: &str, wanted: u32, name: &str, found: usize| match wanted as usize <= found {
        true => Ok(()),
        false => Err(bad_input!(
            "{what} {wanted} asks for more pictures than {name} has: {found}"
        )),
    };
    short(
        "--pictures",
        args.pictures,
        &data.test_name,
        data.test.len(),
    )?;
    short(
        "--neighbours",
        args.neighbours,
        &data.train_name,
        data.train.len(),
    )?;
    if let Some(bank) = args.bank {
        short("--bank", bank, &data.train_name, data.train.len())?;
    }
    if args.bank.is_some_and(|bank| bank < args.neighbours) {
        return Err(bad_input!(
            "--neighbours {} asks for more than the --bank of {}",
            args.neighbours,
            args.bank.unwrap_or_default()
        ));
    }
    let out = out(args, &subject.loaded.path);
    let (client, cache) = evaluation::client(&args.pjrt, &subject.config.gpu)?;
    let gathered = Gathered::new(&subject, args, &client, cache.as_ref())?;
    let pairs = pairs::pairs(&subject, args, &client, cache.as_ref())?;
    let mut report = report(&subject, args, &gathered, &pairs)?;
    let protocol = protocol(&report, args)?;
    let manifest = &subject.loaded.manifest;
    let show = Show {
        title: format!("{}, step {}", name(&subject.loaded.path), manifest.step),
        subtitle: format!(
            "What its base encoder makes of pictures: {}",
            subject.layer()
        ),
        queries: gathered.queries,
        map: gathered.map,
        attention: gathered.attention,
        pairs: pairs.map(|found| found.shown),
        protocol,
    };
    let bytes = show::write(&show, &out)
        .with_context(|| format!("cannot make the page {}", out.display()))?;
    report["path"] = json!(out.to_string_lossy());
    report["bytes"] = json!(bytes);
    match args.json {
        true => print(&format!("{report}\n")),
        false => print(&text(&report)?),
    }
}

/// A run's folder has its page in it, beside the report; a checkpoint, whose
/// folder is as it was written, has it beside.
fn out(args: &Args, checkpoint: &Path) -> PathBuf {
    let beside = || match args.checkpoint.parent() {
        Some(parent) => parent.join("show.html"),
        None => PathBuf::from("show.html"),
    };
    match &args.out {
        Some(out) => out.clone(),
        None if checkpoint == args.checkpoint => beside(),
        None => args.checkpoint.join("show.html"),
    }
}

/// The run's name: that of its folder.
fn name(checkpoint: &Path) -> String {
    let real = checkpoint.canonicalize();
    let real = real.unwrap_or_else(|_| checkpoint.to_owned());
    let run = real.ancestors().nth(2).unwrap_or(&real);
    let name = run.file_name().unwrap_or(run.as_os_str());
    name.to_string_lossy().into_owned()
}

/// All numbers, with all that one must know to make them again.
fn report(
    subject: &Subject,
    args: &Args,
    gathered: &Gathered,
    pairs: &Result<pairs::Found, String>,
) -> Result<Json> {
    let data = &subject.data;
    let left_out = |why: &String| json!({ "left_out": why });
    Ok(json!({
        "path": "",
        "bytes": 0,
        "layer": subject.layer(),
        "mode": "evaluation, no augmentation",
        "crop": subject.crop(),
        "set": subject.told(),
        "bank": evaluation::set(&data.train_name, &data.train, gathered.bank)?,
        "queries": evaluation::set(&data.test_name, &data.test, data.test.len())?,
        "checkpoint": subject.checkpoint(),
        "seed": args.seed,
        "pictures": gathered.queries.len(),
        "k": args.neighbours,
        "neighbours": gathered.neighbours,
        "map": gathered.planes,
        "attention": match &gathered.attention {
            Ok(found) => json!({
                "words": found.words,
                "heads": found.looked.first().map_or(0, |look| look.heads.len()),
                "grid": [found.side, found.side],
                "pictures": found.looked.len(),
            }),
            Err(why) => left_out(why),
        },
        "pairs": match pairs {
            Ok(found) => found.report.clone(),
            Err(why) => left_out(why),
        },
    }))
}

const PROTOCOL: [(&str, &str); 7] = [
    ("checkpoint", "/checkpoint/path"),
    ("step", "/checkpoint/step"),
    ("SHA-256", "/checkpoint/sha256"),
    ("layer", "/layer"),
    ("mode", "/mode"),
    ("crop", "/crop"),
    ("seed", "/seed"),
];

/// Words for the page.
fn protocol(report: &Json, args: &Args) -> Result<Vec<(String, String)>> {
    let told = [
        lines(report, &PROTOCOL)?,
        set_lines(report, &["bank", "queries"])?,
    ]
    .concat();
    let mut protocol: Vec<(String, String)> = told
        .lines()
        .filter_map(|line| line.split_at_checked(12))
        .map(|(what, words)| (what.trim().to_owned(), words.to_owned()))
        .collect();
    let mut add = |what: &str, words: String| protocol.push((what.to_owned(), words));
    add(
        "random pictures",
        format!(
            "{}, with {} neighbours each",
            args.pictures, args.neighbours
        ),
    );
    if let Some(set) = report["set"].as_array().filter(|set| !set.is_empty()) {
        let set: Vec<&str> = set.iter().filter_map(Json::as_str).collect();
        add("set", set.join(" "));
    }
    if let Some(step) = report.pointer("/pairs/step") {
        add(
            "pairs",
            format!("step {step}, the run's seed {}", report["pairs"]["seed"]),
        );
    }
    let command: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| quoted(&word.to_string_lossy()))
        .collect();
    add("command", format!("xla-moco {}", command.join(" ")));
    add(
        "written by",
        format!("xla-moco {}", env!("CARGO_PKG_VERSION")),
    );
    Ok(protocol)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// The report for people.
fn text(report: &Json) -> Result<String> {
    let left_out = |what: &str| match report[what]["left_out"].as_str() {
        Some(why) => format!("without {what}: {why}\n"),
        None => String::new(),
    };
    Ok(format!(
        "wrote {} ({:.1} MB)\n{}{}\n{}{}",
        report["path"].as_str().unwrap_or_default(),
        report["bytes"].as_f64().unwrap_or_default() / 1e6,
        left_out("attention"),
        left_out("pairs"),
        lines(report, &PROTOCOL)?,
        set_lines(report, &["bank", "queries"])?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_a_shell_needs_it() {
        for (word, expected) in [
            ("--seed=1", "--seed=1"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}

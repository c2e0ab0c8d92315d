//! `xla-moco reproduce`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::print;
use super::table::aligned;
use crate::bad_input;
use crate::checkpoint::atomic;
use crate::ledger::reproduce::{Compared, Places};
use crate::ledger::{Entry, Ledger, document};

/// Run an experiment of docs/results again and compare
///
/// Runs the commands that results/ledger.jsonl has for it, reads the same
/// numbers, and says whether each is within what the ledger states. Without an
/// id it lists them. Runs that are finished in --out are not run again, and it
/// says so: give another --out to run everything.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco reproduce
  xla-moco reproduce quickstart/knn-100
  xla-moco reproduce cifar10/moco_v3_vit_micro --data data/cifar10 --seed 1")]
pub struct Args {
    /// Which experiment
    pub id: Option<String>,

    /// Seeds to run; by default the ledger's first
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub seed: Vec<u64>,

    /// Where the pictures lie that it needs
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,

    /// The folder for its runs
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    pub out: String,

    /// Put the numbers into the ledger
    #[arg(long, requires = "id")]
    pub record: bool,

    /// Write docs/results from the templates beside the ledger
    #[arg(long, conflicts_with = "id")]
    pub docs: bool,

    /// Only say whether docs/results is what the templates make
    #[arg(long, requires = "docs")]
    pub check: bool,

    #[arg(long, value_name = "FILE", default_value = "results/ledger.jsonl")]
    pub ledger: PathBuf,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// [`bad_input!`] for an id, pictures or a ledger that cannot be used; if a
/// command fails; if a number is not within what is stated.
pub fn run(args: Args) -> Result<()> {
    let ledger = Ledger::read(&args.ledger)?;
    if args.docs {
        return documents(&ledger, args.check);
    }
    match &args.id {
        None => list(&ledger, args.json),
        Some(id) => again(&args, ledger.get(id)?.clone()),
    }
}

fn list(ledger: &Ledger, as_json: bool) -> Result<()> {
    if as_json {
        return print(&format!("{}\n", json!({ "experiments": ledger.entries })));
    }
    let head = ["id", "pictures", "seconds a seed"].map(str::to_owned);
    let row = |entry: &Entry| {
        let seconds = seconds(entry).map_or("-".into(), |seconds| format!("{seconds:.0}"));
        let data = entry.data.as_ref().map_or("its own", |data| &data.name);
        let data = match &entry.source {
            Some(_) => "not ours",
            None => data,
        };
        [entry.id.clone(), data.to_owned(), seconds]
    };
    let rows = ledger.entries.iter().map(row);
    let table = aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    let what = ledger.entries.iter().map(|entry| entry.what.as_str());
    let lines = table.lines().zip(std::iter::once("what").chain(what));
    print(
        &lines
            .map(|(line, what)| format!("{line}  {what}\n"))
            .collect::<String>(),
    )
}

/// The most seconds that a seed took.
fn seconds(entry: &Entry) -> Option<f64> {
    entry.runs.values().map(|run| run.seconds).reduce(f64::max)
}

fn again(args: &Args, mut entry: Entry) -> Result<()> {
    let places = Places {
        program: std::env::current_exe().context("where this program lies")?,
        data: args.data.clone(),
        out: args.out.clone(),
    };
    entry.check(&places)?;
    let known = entry
        .numbers
        .values()
        .flat_map(|number| number.seeds.keys());
    let seeds = match args.seed.is_empty() {
        true => vec![known.copied().min().unwrap_or(0)],
        false => args.seed.clone(),
    };
    let mut compared: Vec<(u64, Compared)> = Vec::new();
    let mut checkpoints = Vec::new();
    for seed in seeds {
        let outcome = entry.run(&places, seed)?;
        for folder in &outcome.reused {
            let folder = folder.display();
            tracing::warn!("{folder} had steps already: they were not run again (--out for anew)");
        }
        let found = entry.compare(seed, &outcome.values);
        compared.extend(found.into_iter().map(|one| (seed, one)));
        let before = entry.runs.get(&seed).map(|run| run.checkpoint.clone());
        checkpoints.push(json!({
            "seed": seed,
            "sha256": outcome.run.checkpoint,
            "same_bits": before.map(|before| before == outcome.run.checkpoint),
            "reused": outcome.reused,
        }));
        if args.record {
            // As it is by now: another may have recorded meanwhile.
            let mut ledger = Ledger::read(&args.ledger)?;
            entry = ledger.get(&entry.id)?.clone();
            entry.record(seed, outcome);
            ledger.put(entry.clone())?;
        }
    }
    let off = compared.iter().filter(|(_, one)| !one.holds).count();
    match args.json {
        true => {
            let numbers: Vec<_> = compared
                .iter()
                .map(|(seed, one)| {
                    let mut line = json!(one);
                    line["seed"] = json!(seed);
                    line
                })
                .collect();
            let report = json!({
                "id": entry.id, "holds": off == 0, "numbers": numbers, "checkpoints": checkpoints,
            });
            print(&format!("{report}\n"))?;
        }
        false => print(&text(&entry, &compared))?,
    }
    match off {
        _ if args.record => Ok(()),
        0 => Ok(()),
        _ => bail!(
            "{off} of {} numbers of {} are not what the ledger states",
            compared.len(),
            entry.id
        ),
    }
}

fn text(entry: &Entry, compared: &[(u64, Compared)]) -> String {
    let head = [
        "number",
        "seed",
        "now",
        "ledger",
        "difference",
        "within",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for (seed, one) in compared {
        let digits = entry.numbers[&one.number].digits + 1;
        let told = |value: Option<f64>| value.map_or("-".into(), |x| format!("{x:.digits$}"));
        rows.push([
            format!("{}, {}", one.number, one.unit),
            seed.to_string(),
            told(Some(one.now)),
            told(one.ledger),
            told(one.difference),
            told(Some(one.within)),
            match (one.ledger, one.holds) {
                (None, _) => "not in the ledger yet",
                (_, true) => "holds",
                (_, false) => "DOES NOT HOLD",
            }
            .into(),
        ]);
    }
    format!("{}: {}\n\n{}", entry.id, entry.what, aligned(&rows))
}

/// Writes the pages, or compares them.
fn documents(ledger: &Ledger, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in document::pages(ledger)? {
        let same = std::fs::read_to_string(&path).is_ok_and(|old| old == text);
        match (same, check) {
            (true, _) => {}
            (false, true) => stale.push(path.display().to_string()),
            (false, false) => {
                atomic::write_file(&path, text.as_bytes())?;
                print(&format!("wrote {}\n", path.display()))?;
            }
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(bad_input!(
            "{} are not what the templates and the ledger make: run `xla-moco reproduce --docs`",
            stale.join(", ")
        )),
    }
}

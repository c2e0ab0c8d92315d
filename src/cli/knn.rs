//! `xla-moco knn`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::{PjrtArgs, print};
use crate::bad_input;
use crate::checkpoint::{self, Dtype, Loaded, RunDir, Snapshot};
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::eval::knn::{HeldOut, KnnResult};
use crate::pjrt::install::{self, ResolveOptions};
use crate::pjrt::{Buffer, Client, ClientOptions, CompileCache};
use crate::train::{self, Places};

/// Confusions that the text shows.
const CONFUSIONS: usize = 5;

/// Classify held-out pictures by their nearest neighbours' classes
///
/// Uses class-token features of the base encoder in evaluation form, without
/// augmentation. All training pictures are the bank, all test pictures the
/// queries.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  xla-moco knn --checkpoint runs/quickstart --data pictures/train --test pictures/test --json")]
pub struct Args {
    /// A run folder (its newest checkpoint) or one checkpoint
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub checkpoint: PathBuf,

    /// The labelled bank; by default the run's training pictures
    #[arg(long, value_name = "TRAIN")]
    pub data: Option<String>,

    /// The queries; by default the test split that belongs to the bank
    #[arg(long, value_name = "TEST")]
    pub test: Option<String>,

    /// Neighbours that vote
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub k: u32,

    /// Print one JSON object (top1 in percent) and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

/// # Errors
/// [`bad_input!`] for a checkpoint, a configuration or data that cannot be
/// used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let loaded = checkpoint::open(&args.checkpoint)?;
    let config = config_of(&loaded.path)?;
    let data = open(&config, &args)?;
    let k = args.k as usize;
    if k > data.train.len() {
        return Err(bad_input!(
            "--k {k} asks for more neighbours than the bank {} has pictures: {}",
            data.train_name,
            data.train.len()
        ));
    }
    let config = protocol(config, k);
    let plugin = install::load(&args.pjrt.pjrt, &ResolveOptions::default())?;
    let client = Client::new(&plugin, &ClientOptions::default())?;
    let cache = match args.pjrt.no_compile_cache {
        true => None,
        false => Some(CompileCache::of_user()?),
    };
    let held_out = HeldOut::new(&client, &config, &data.train, &data.test, cache.as_ref())?;
    let variables = upload(&client, &loaded.snapshot, &held_out)
        .with_context(|| format!("the checkpoint {}", loaded.path.display()))?;
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let result = held_out.evaluate(&backbone)?;
    if result.k < k {
        return Err(bad_input!(
            "--k {k} asks for more neighbours than the bank {} has readable, labelled pictures: {}",
            data.train_name,
            result.bank
        ));
    }
    let report = report(&result, &config, &loaded, &data)?;
    match args.json {
        true => print(&format!("{report}\n")),
        false => print(&text(&result, &report)?),
    }
}

/// The configuration of the run that a checkpoint lies in, `RUN/checkpoints/`.
fn config_of(checkpoint: &Path) -> Result<RunConfig> {
    let real = checkpoint
        .canonicalize()
        .with_context(|| format!("cannot open {}", checkpoint.display()))?;
    let root = real.ancestors().nth(2).unwrap_or(&real);
    let written = RunDir::open(root)?.read_config()?.ok_or_else(|| {
        bad_input!(
            "the checkpoint {} lies in no run: expected the run's config.json in {}",
            checkpoint.display(),
            root.display()
        )
    })?;
    RunConfig::from_value(written)
        .with_context(|| format!("configuration {}", root.join("config.json").display()))
}

/// All of the bank and all queries, with so many neighbours.
fn protocol(mut config: RunConfig, k: usize) -> RunConfig {
    config.eval.knn_k = k;
    config.eval.bank_limit = None;
    config.eval.query_limit = None;
    config
}

struct Sets {
    train: Arc<Dataset>,
    train_name: String,
    test: Arc<Dataset>,
    test_name: String,
}

/// Opens the bank and the queries. With --data and --test each is all that is
/// there; what is not given belongs to the other, or to the run.
fn open(config: &RunConfig, args: &Args) -> Result<Sets> {
    let at = |path: &str| train::at(&config.data, path);
    let Places {
        train: bank,
        beside,
    } = match &args.data {
        Some(path) => Places {
            train: at(path),
            beside: at(path),
        },
        None => Places::of(&config.data),
    };
    let train = match (&args.data, &args.test) {
        (Some(_), Some(_)) => Dataset::open(&bank)?,
        _ => Dataset::open_train(&bank)?,
    };
    if !train.is_labelled() {
        return Err(bad_input!(
            "{} has no labels, and only labelled pictures can vote: give --data a folder of class \
             folders, labelled tar files or CIFAR's files, and --test the like",
            bank.path
        ));
    }
    let of_run = config.data.test.as_ref().filter(|_| args.data.is_none());
    let (test, test_name) = match args.test.as_ref().or(of_run) {
        Some(path) => {
            let mut test = Dataset::open(&at(path))?;
            test.align_labels(train.classes())
                .with_context(|| format!("{path} against {}", bank.path))?;
            (test, path.clone())
        }
        None => {
            let test = Dataset::open_test(&beside, &train)?
                .ok_or_else(|| bad_input!("no test split belongs to {}: give --test", bank.path))?;
            (test, format!("test split of {}", beside.path))
        }
    };
    Ok(Sets {
        train: Arc::new(train),
        train_name: bank.path,
        test: Arc::new(test),
        test_name,
    })
}

/// The variables of the backbone on the first device.
fn upload(client: &Client, state: &Snapshot, held_out: &HeldOut) -> Result<Vec<(String, Buffer)>> {
    let device = &client.devices()[0];
    let put = |(name, shape): &(String, crate::graph::Shape)| {
        let found = state
            .get(name)
            .ok_or_else(|| bad_input!("it has no tensor {name}, which the run's model needs"))?;
        if found.dtype != Dtype::F32 || found.shape != shape.dims() {
            return Err(bad_input!(
                "its tensor {name} is {:?} {:?}; the run's model needs {shape}",
                found.dtype,
                found.shape
            ));
        }
        let buffer = client.buffer_from_host(&found.data, shape.dtype, shape.dims(), device)?;
        Ok((name.clone(), buffer))
    };
    held_out.variables().iter().map(put).collect()
}

/// The result with all that one must know to compare it with another.
fn report(result: &KnnResult, config: &RunConfig, loaded: &Loaded, data: &Sets) -> Result<Json> {
    let px = config.model.image_size;
    let set = |name: &str, data: &Dataset, used: usize| -> Result<Json> {
        Ok(json!({
            "path": name,
            "pictures": used,
            "fingerprint": data.fingerprint()?,
        }))
    };
    Ok(json!({
        "top1": result.top1,
        "k": result.k,
        "temperature": result.temperature,
        "vote": "exp(cosine / temperature)",
        "layer": "class token after the final norm, base encoder",
        "mode": "evaluation, no augmentation",
        "crop": format!(
            "shorter side to {}, central {px} x {px}; pictures of {px} x {px} as they are",
            px * 256 / 224
        ),
        "bank": set(&data.train_name, &data.train, result.bank)?,
        "queries": set(&data.test_name, &data.test, result.queries)?,
        "checkpoint": {
            "path": loaded.path,
            "step": loaded.manifest.step,
            "sha256": loaded.manifest.state_sha256,
        },
        "per_class": result.per_class,
        "confusions": result.confusions,
    }))
}

/// The report for people.
fn text(result: &KnnResult, report: &Json) -> Result<String> {
    let mut text = String::new();
    let word = |path: &str| match report.pointer(path) {
        Some(Json::String(word)) => word.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    writeln!(
        text,
        "kNN top-1 {:.2}% of {} queries (chance {:.2}% with equal classes)\n",
        result.top1,
        result.queries,
        100.0 / result.per_class.len() as f64
    )?;
    for (what, of) in [
        ("k", "/k"),
        ("temperature", "/temperature"),
        ("vote", "/vote"),
        ("layer", "/layer"),
        ("mode", "/mode"),
        ("crop", "/crop"),
        ("checkpoint", "/checkpoint/path"),
        ("step", "/checkpoint/step"),
        ("SHA-256", "/checkpoint/sha256"),
    ] {
        writeln!(text, "{what:<12}{}", word(of))?;
    }
    for what in ["bank", "queries"] {
        let [path, pictures, fingerprint] =
            ["path", "pictures", "fingerprint"].map(|key| word(&format!("/{what}/{key}")));
        writeln!(text, "{what:<12}{pictures} of {path} ({fingerprint:.12})")?;
    }
    writeln!(text, "\nby class")?;
    let names = result.per_class.iter().map(|c| c.name.chars().count());
    let width = names.max().unwrap_or(0);
    for class in &result.per_class {
        let top1 = class.top1.map_or("-".into(), |x| format!("{x:.2}%"));
        let (name, right, queries) = (&class.name, class.right, class.queries);
        writeln!(text, "  {name:<width$} {top1:>8}  {right} of {queries}")?;
    }
    if !result.confusions.is_empty() {
        writeln!(text, "\nmost often confused")?;
    }
    for pair in result.confusions.iter().take(CONFUSIONS) {
        let (actual, predicted) = (&pair.actual, &pair.predicted);
        writeln!(
            text,
            "  {:>6}  {actual} taken for {predicted}",
            pair.queries
        )?;
    }
    Ok(text)
}

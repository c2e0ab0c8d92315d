//! `xla-moco knn`.

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::evaluation::{self, EvalArgs, Subject, by_class, lines, set_lines};
use super::print;
use crate::bad_input;
use crate::config::RunConfig;
use crate::eval::knn::{HeldOut, KnnResult};
use crate::pjrt::Buffer;

/// Classify held-out pictures by their nearest neighbours' classes
///
/// Uses class-token features of the base encoder in evaluation form, without
/// augmentation. All training pictures are the bank, all test pictures the
/// queries.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  xla-moco knn --checkpoint runs/quickstart --data pictures/train --test pictures/test --json")]
pub struct Args {
    #[command(flatten)]
    pub common: EvalArgs,

    /// Neighbours that vote
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub k: u32,
}

/// # Errors
/// [`bad_input!`] for a checkpoint, a configuration or data that cannot be
/// used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let subject = Subject::open(&args.common)?;
    let data = &subject.data;
    let k = args.k as usize;
    if k > data.train.len() {
        return Err(bad_input!(
            "--k {k} asks for more neighbours than the bank {} has pictures: {}",
            data.train_name,
            data.train.len()
        ));
    }
    let config = protocol(subject.config.clone(), k);
    let (client, cache) = evaluation::client(&args.common.pjrt)?;
    let held_out = HeldOut::new(&client, &config, &data.train, &data.test, cache.as_ref())?;
    let variables = subject.upload(&client, held_out.variables())?;
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let result = held_out.evaluate(&backbone)?;
    if result.k < k {
        return Err(bad_input!(
            "--k {k} asks for more neighbours than the bank {} has readable, labelled pictures: {}",
            data.train_name,
            result.bank
        ));
    }
    let report = report(&result, &subject)?;
    match args.common.json {
        true => print(&format!("{report}\n")),
        false => print(&text(&result, &report)?),
    }
}

/// All of the bank and all queries, with so many neighbours.
fn protocol(mut config: RunConfig, k: usize) -> RunConfig {
    config.eval.knn_k = k;
    config.eval.bank_limit = None;
    config.eval.query_limit = None;
    config
}

/// The result with all that one must know to compare it with another.
fn report(result: &KnnResult, subject: &Subject) -> Result<Json> {
    let data = &subject.data;
    Ok(json!({
        "top1": result.top1,
        "k": result.k,
        "temperature": result.temperature,
        "vote": "exp(cosine / temperature)",
        "layer": subject.layer(),
        "mode": "evaluation, no augmentation",
        "crop": subject.crop(),
        "set": subject.told(),
        "bank": evaluation::set(&data.train_name, &data.train, result.bank)?,
        "queries": evaluation::set(&data.test_name, &data.test, result.queries)?,
        "checkpoint": subject.checkpoint(),
        "per_class": result.per_class,
        "confusions": result.confusions,
    }))
}

/// The report for people.
fn text(result: &KnnResult, report: &Json) -> Result<String> {
    let protocol = [
        ("k", "/k"),
        ("temperature", "/temperature"),
        ("vote", "/vote"),
        ("layer", "/layer"),
        ("mode", "/mode"),
        ("crop", "/crop"),
        ("checkpoint", "/checkpoint/path"),
        ("step", "/checkpoint/step"),
        ("SHA-256", "/checkpoint/sha256"),
    ];
    Ok(format!(
        "kNN top-1 {:.2}% of {} queries (chance {:.2}% with equal classes)\n\n{}{}{}",
        result.top1,
        result.queries,
        100.0 / result.per_class.len() as f64,
        lines(report, &protocol)?,
        set_lines(report, &["bank", "queries"])?,
        by_class(&result.per_class, &result.confusions)?
    ))
}

//! `xla-moco knn`.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::evaluation::{self, EvalArgs, Reports, Sets, Subject, by_class, lines, set_lines};
use super::table::aligned;
use crate::bad_input;
use crate::config::RunConfig;
use crate::eval::knn::{HeldOut, KnnResult};
use crate::pjrt::{Buffer, Client, CompileCache};

/// Classify held-out pictures by their nearest neighbours' classes
///
/// Uses class-token features of the base encoder in evaluation form, without
/// augmentation. All training pictures are the bank, all test pictures the
/// queries. Neighbours are searched once; every k votes with every temperature.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco knn --checkpoint runs/quickstart --data pictures/train --test pictures/test --json
  xla-moco knn --checkpoint runs/quickstart --k 1,5,20,200 --temperature 0.07,0.2")]
pub struct Args {
    #[command(flatten)]
    pub common: EvalArgs,

    /// Neighbours that vote, several separated by commas
    #[arg(
        long,
        value_name = "K",
        value_delimiter = ',',
        default_value = "20",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub k: Vec<u32>,

    /// Temperatures of the votes, exp(cosine / T), separated by commas; by
    /// default the run's eval.knn_temperature
    #[arg(long, value_name = "T", value_delimiter = ',', value_parser = temperature)]
    pub temperature: Vec<f64>,
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(t) if f64::is_finite(t) && t > 0.0 => Ok(t),
        _ => Err("expected a number above 0".into()),
    }
}

/// # Errors
/// [`bad_input!`] for a checkpoint, a configuration or data that cannot be
/// used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let subject = Subject::open(&args.common)?;
    let (client, cache) = evaluation::client(&args.common.pjrt, &subject.config.gpu)?;
    let mut reports = Reports::new(args.common.json);
    for data in &subject.data {
        bounded(&args, data, data.train.len(), "pictures")?;
    }
    for data in &subject.data {
        let results = results(&args, &subject, data, &client, cache.as_ref())?;
        let report = report(&results, &subject, data)?;
        reports.add(report.clone(), &text(&results, &report)?)?;
    }
    reports.end()
}

/// Refuses more neighbours than a bank has.
fn bounded(args: &Args, data: &Sets, pictures: usize, which: &str) -> Result<()> {
    let largest = args.k.iter().copied().max().unwrap_or(1);
    match largest as usize <= pictures {
        true => Ok(()),
        false => Err(bad_input!(
            "--k {largest} asks for more neighbours than the bank {} has {which}: {pictures}",
            data.train_name
        )),
    }
}

/// Every k with every temperature, on one set.
fn results(
    args: &Args,
    subject: &Subject,
    data: &Sets,
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
) -> Result<Vec<KnnResult>> {
    let ks = args.k.iter().map(|k| *k as usize);
    let largest = ks.clone().max().unwrap_or(1);
    let config = whole_sets(subject.config.clone());
    let held_out = HeldOut::new(client, &config, &data.train, &data.test, cache)?;
    let variables = subject.upload(client, held_out.variables())?;
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let found = held_out.neighbours(&backbone, largest)?;
    bounded(args, data, found.k(), "readable, labelled pictures")?;
    let temperatures = match args.temperature.is_empty() {
        true => vec![config.eval.knn_temperature],
        false => args.temperature.clone(),
    };
    let votes = ks.flat_map(|k| temperatures.iter().map(move |t| (k, *t)));
    Ok(votes.map(|(k, t)| found.vote(k, t)).collect())
}

/// All of the bank and all queries.
fn whole_sets(mut config: RunConfig) -> RunConfig {
    config.eval.bank_limit = None;
    config.eval.query_limit = None;
    config
}

/// The results with all that one must know to compare them with others. What
/// stands beside the protocol is of the first pair of k and temperature.
fn report(results: &[KnnResult], subject: &Subject, data: &Sets) -> Result<Json> {
    let sweep: Vec<Json> = results.iter().map(numbers).collect();
    let first = &results[0];
    let mut report = json!({
        "vote": "exp(cosine / temperature)",
        "layer": subject.layer(),
        "mode": "evaluation, no augmentation",
        "crop": subject.crop(),
        "set": subject.told(),
        "bank": evaluation::set(&data.train_name, &data.train, first.bank)?,
        "queries": evaluation::set(&data.test_name, &data.test, first.queries)?,
        "checkpoint": subject.checkpoint(),
        "sweep": sweep,
    });
    if let (Some(report), Json::Object(first)) = (report.as_object_mut(), numbers(first)) {
        report.extend(first);
    }
    Ok(report)
}

fn numbers(result: &KnnResult) -> Json {
    json!({
        "top1": result.top1,
        "k": result.k,
        "temperature": result.temperature,
        "per_class": result.per_class,
        "confusions": result.confusions,
    })
}

/// The report for people.
fn text(results: &[KnnResult], report: &Json) -> Result<String> {
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
    let first = &results[0];
    let mut sweep = String::new();
    if results.len() > 1 {
        let mut rows = vec![["k", "temperature", "top-1"].map(str::to_owned)];
        rows.extend(results.iter().map(|result| {
            let top1 = format!("{:.2}%", result.top1);
            [result.k.to_string(), result.temperature.to_string(), top1]
        }));
        sweep = format!("\n{}", aligned(&rows));
    }
    Ok(format!(
        "kNN top-1 {:.2}% of {} queries (chance {:.2}% with equal classes)\n\n{}{}{sweep}{}",
        first.top1,
        first.queries,
        100.0 / first.per_class.len() as f64,
        lines(report, &protocol)?,
        set_lines(report, &["bank", "queries"])?,
        by_class(&first.per_class, &first.confusions)?
    ))
}

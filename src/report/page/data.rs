//! The numbers of a page, as JSON for its script.
//!
//! A metric of few points is `{x, y}`, step and value of each; one of many is
//! `{w, lo, y, hi}`: least, mean and greatest value of each `w` steps, `null`
//! where there is none. `bad` has steps whose value was not finite.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::events::Severity;
use super::super::follow::{Follower, Phase};
use super::super::series::Column;
use super::Align;

/// A page has at most so many buckets over all metrics and runs: with three
/// numbers of up to eleven characters each they stay below 2 MB, at the usual
/// six or seven at about one.
const BUCKETS_IN_ALL: usize = 50_000;
/// More a metric no screen shows.
const BUCKETS: usize = 1000;
/// Marks of events in the charts; the table has them too.
const MARKS: usize = 300;
/// Values that a spike is compared with, as the detector does.
const WINDOW: usize = 100;
/// What is drawn for every layer.
pub(super) const LAYERS: &str = "grad_norm/";
/// Metrics that are an axis and no curve.
const AXES: [&str; 2] = ["epoch", "seconds"];

/// Title, metric, metric that it is compared with and its name, whether the
/// axis has 0 on it.
type Chart = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    bool,
);

/// The charts that come first, in this order; other metrics follow.
const CHARTS: [Chart; 13] = [
    ("Loss", "loss", Some(("chance_loss", "chance")), false),
    ("kNN on training pictures, %", "knn_top1", None, false),
    ("Gradient norm", "grad_norm", None, true),
    ("Queries that find their key", "key_found", None, true),
    ("Spread of outputs", "output_std", None, true),
    ("Spread of features", "feature_std", None, true),
    ("Effective rank of features", "effective_rank", None, true),
    ("Positive logit", "positive_logit", None, false),
    ("Negative logit", "negative_logit", None, false),
    ("Learning rate", "lr", None, true),
    ("Momentum of the key encoder", "momentum", None, false),
    ("Images a second", "images_per_second", None, true),
    ("Input wait, share of time", "input_wait", None, true),
];

/// The object, as it may stand in a script element.
pub(super) fn json(runs: &[Follower], align: Align, live: bool) -> String {
    let metrics: usize = runs.iter().map(|run| run.columns.len()).sum();
    let most = (BUCKETS_IN_ALL / metrics.max(1)).clamp(20, BUCKETS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut out = format!(
        "{{\"live\":{live},\"going\":{},\"made\":{},\"align\":\"{}\",\"charts\":{},\"runs\":[",
        runs.iter().any(|run| run.phase() == Phase::Going),
        now.map_or(0, |d| d.as_millis()),
        align.name(),
        charts(runs)
    );
    for (i, run) in runs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        one(&mut out, run, most);
    }
    out.push_str("]}");
    // No tag can begin within a script element, whatever a name says.
    out.replace('<', "\\u003c")
}

fn charts(runs: &[Follower]) -> Value {
    let mut charts = Vec::new();
    for (title, key, guide, zero) in CHARTS {
        charts.push(json!({
            "title": title, "key": key, "zero": zero,
            "guide": guide.map(|(key, _)| key), "guideName": guide.map(|(_, name)| name),
        }));
    }
    let guides = || CHARTS.iter().filter_map(|(_, _, guide, _)| *guide);
    let mut seen: Vec<String> = CHARTS.iter().map(|chart| chart.1.to_owned()).collect();
    seen.extend(guides().map(|(key, _)| key.to_owned()));
    seen.extend(AXES.map(str::to_owned));
    for (key, _) in runs.iter().flat_map(|run| run.columns.iter()) {
        // What has parts is one chart, with a choice of the part.
        let name = key.split_once('/').map_or(key, |(family, _)| family);
        let family = name.len() < key.len();
        let id = if family {
            format!("{name}/")
        } else {
            key.to_owned()
        };
        if seen.contains(&id) {
            continue;
        }
        let title = match &id[..] {
            LAYERS => "Gradient norm of a layer".to_owned(),
            _ => name.replace('_', " "),
        };
        charts.push(json!({ "title": title, "key": id, "zero": true, "family": family }));
        seen.push(id);
    }
    charts.into()
}

fn one(out: &mut String, run: &Follower, most: usize) {
    let last = run.columns.last_step();
    let width = last.div_ceil(most as u32).max(1);
    let batch = run.config.pointer("/batch").and_then(Value::as_u64);
    let _ = write!(
        out,
        "{{\"name\":{},\"batch\":{},\"last\":{last},\"marks\":{},\"series\":{{",
        Value::from(run.name()),
        batch.unwrap_or(0),
        marks(run)
    );
    let mut comma = "";
    let drawn = run.columns.iter().filter(|(key, _)| !AXES.contains(key));
    for (key, column) in drawn {
        let _ = write!(out, "{comma}{}:", Value::from(key));
        series(out, column, width, most);
        comma = ",";
    }
    out.push_str("},\"heat\":");
    heat(out, run, width);
    out.push('}');
}

fn series(out: &mut String, column: &Column, width: u32, most: usize) {
    out.push('{');
    if column.points.len() <= most {
        let points = &column.points;
        list(out, "x", points.iter().map(|&(step, _)| Some(step.into())));
        out.push(',');
        list(out, "y", points.iter().map(|&(_, y)| Some(y.into())));
    } else {
        let buckets = column.buckets(width);
        let _ = write!(out, "\"w\":{width},");
        list(out, "lo", buckets.iter().map(|b| b.map(|b| b.low.into())));
        out.push(',');
        list(out, "y", buckets.iter().map(|b| b.map(|b| b.mean())));
        out.push(',');
        list(out, "hi", buckets.iter().map(|b| b.map(|b| b.high.into())));
    }
    if column.lost_count > 0 {
        let _ = write!(out, ",\"lost\":{},", column.lost_count);
        list(
            out,
            "bad",
            column.lost.iter().map(|&step| Some(step.into())),
        );
    }
    out.push('}');
}

/// Layers x steps: the greatest of each bucket's gradient norms over the
/// median of the steps before (Fig. 4).
fn heat(out: &mut String, run: &Follower, width: u32) {
    let layers = run.columns.iter();
    let layers = layers.filter_map(|(key, column)| Some((key.strip_prefix(LAYERS)?, column)));
    let _ = write!(out, "{{\"w\":{width},\"layers\":[");
    for (i, (name, column)) in layers.enumerate() {
        let buckets = column.over_median(WINDOW).buckets(width);
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{{\"name\":{},", Value::from(name));
        list(out, "v", buckets.iter().map(|b| b.map(|b| b.high.into())));
        out.push(',');
        list(
            out,
            "bad",
            column.lost.iter().map(|&step| Some(step.into())),
        );
        out.push('}');
    }
    out.push_str("]}");
}

fn marks(run: &Follower) -> Value {
    let marks = run.trouble(MARKS).into_iter().map(|event| {
        let number = |key: &str| event.evidence.get(key).and_then(Value::as_u64);
        let first = number("first_step").unwrap_or(event.step);
        json!({
            "kind": event.kind,
            "error": event.severity == Severity::Error,
            "from": first,
            "to": first.saturating_add(number("steps").unwrap_or(0)),
        })
    });
    marks.collect::<Vec<_>>().into()
}

fn list(out: &mut String, name: &str, values: impl Iterator<Item = Option<f64>>) {
    let _ = write!(out, "\"{name}\":[");
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value {
            Some(value) if value.is_finite() => short(out, value),
            _ => out.push_str("null"),
        }
    }
    out.push(']');
}

/// Five significant digits; steps are whole.
fn short(out: &mut String, value: f64) {
    let _ = match value {
        _ if value.fract() == 0.0 && value.abs() < 1e9 => write!(out, "{value}"),
        _ => match value.abs() {
            0.01..1e6 => {
                let text = format!("{value:.4e}");
                write!(out, "{}", text.parse::<f64>().unwrap_or(value))
            }
            _ => write!(out, "{value:.4e}"),
        },
    };
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short_json() {
        for (value, text) in [
            (94_000.0, "94000"),
            (0.0, "0"),
            (7.123_456_7, "7.1235"),
            (0.999_96, "0.99996"),
            (1.5e-4, "1.5000e-4"),
            (-1.234_567e-20, "-1.2346e-20"),
            (3.4e38, "3.4000e38"),
        ] {
            let mut out = String::new();
            short(&mut out, value);
            assert_eq!(out, text);
            assert!(serde_json::from_str::<f64>(&out).is_ok(), "{out}");
        }
    }
}

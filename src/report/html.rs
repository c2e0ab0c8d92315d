//! `report.html`: a run on one page.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value};

use super::events::{Event, Severity, read_events};
use super::health_of;
use super::metrics::read_metrics;
use super::svg::{Series, chart, number};
use super::terminal::duration;
use crate::checkpoint::{RunDir, atomic};
use crate::monitor::{Health, Verdict};

/// The page lists so many events, the newest; all are in `events.jsonl`.
const MAX_EVENTS: usize = 200;

/// The config's keys that a reader wants first, where the config has them.
const FACTS: [(&str, &str); 16] = [
    ("Method", "/method/name"),
    ("Temperature", "/method/temperature"),
    ("Architecture", "/model/arch"),
    ("Blocks", "/model/blocks"),
    ("Width", "/model/dim"),
    ("Heads", "/model/heads"),
    ("Patch, px", "/model/patch"),
    ("Image, px", "/model/image_size"),
    ("Patch projection", "/model/patch_projection"),
    ("Compute type", "/model/compute_dtype"),
    ("Global batch", "/batch"),
    ("Optimizer", "/optimizer/name"),
    ("Base learning rate", "/optimizer/base_lr"),
    ("Weight decay", "/optimizer/weight_decay"),
    ("Data", "/data/path"),
    ("Seed", "/seed"),
];

/// Writes `report.html`, from the files of the run's folder alone; returns
/// its path. The page needs nothing else: no script, no font, no network.
pub fn write_html(run: &RunDir) -> Result<PathBuf> {
    let config = run.read_config()?.unwrap_or(Value::Null);
    let page = page(run, &config, &read_metrics(run)?, &read_events(run)?);
    let path = run.report_path();
    atomic::write_file(&path, page.as_bytes())?;
    Ok(path)
}

fn page(run: &RunDir, config: &Value, metrics: &[Map<String, Value>], events: &[Event]) -> String {
    // The path as given may be `.`; what it names says more.
    let root = run.root().canonicalize().unwrap_or(run.root().to_owned());
    let name = escape(
        &root
            .file_name()
            .unwrap_or(root.as_os_str())
            .to_string_lossy(),
    );
    let title = config.pointer("/about/title").and_then(Value::as_str);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title>\n<style>\n{}</style>\n</head>\n<body>\n<h1>{name}</h1>\n<p>{}</p>\n",
        include_str!("style.css"),
        escape(title.unwrap_or("A pre-training run of xla-moco"))
    );
    out.push_str(&verdict(&health_of(config, metrics)));
    out.push_str(&tiles(config, metrics, events));
    out.push_str(&charts(metrics));
    out.push_str(&facts(config));
    out.push_str(&event_list(events));
    if !config.is_null() {
        let _ = write!(
            out,
            "<h2>Config</h2>\n<details class=\"card\"><summary>config.json, as resolved</summary>\
             <pre>{}</pre></details>\n",
            escape(&format!("{config:#}"))
        );
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn verdict(health: &Health) -> String {
    let class = match health.verdict {
        Verdict::Healthy | Verdict::TooEarly => "info",
        Verdict::Unstable | Verdict::Degrading => "warning",
        _ => "error",
    };
    let mut out = format!(
        "<h2>Health</h2>\n<div class=\"card verdict {class}\"><b>{}</b>",
        health.verdict
    );
    for reason in &health.reasons {
        let _ = write!(out, "<p>{}</p>", escape(reason));
    }
    out + "</div>\n"
}

fn tiles(config: &Value, metrics: &[Map<String, Value>], events: &[Event]) -> String {
    let mut out = String::from("<dl class=\"tiles\">\n");
    let mut tile = |term: &str, value: String, note: String| {
        let _ = writeln!(
            out,
            "<div class=\"card\"><dt>{term}</dt><dd>{value}<small>{note}</small></dd></div>"
        );
    };
    let last = |key| series(metrics, key).last().map(|&(_, value)| value);
    let total = config
        .pointer("/schedule/total_steps")
        .and_then(Value::as_u64);
    let step = last("step").unwrap_or(0.0);
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    let epochs = last("epoch").map(|epoch| format!("{epoch:.1} epochs"));
    let seconds = last("seconds").and_then(|s| Duration::try_from_secs_f64(s).ok());
    let note: Vec<String> = epochs.into_iter().chain(seconds.map(duration)).collect();
    tile("Steps", format!("{step}{of}"), note.join(", "));
    if let (Some(loss), Some(chance)) = (last("loss"), last("chance_loss")) {
        tile("Loss", format!("{loss:.3}"), format!("chance {chance:.3}"));
    }
    let knn = series(metrics, "knn_top1");
    if let Some((step, best)) = knn.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
        tile(
            "Best kNN",
            format!("{best:.1}%"),
            format!("step {step}, on training pictures"),
        );
    }
    let heldout: Vec<f64> = events
        .iter()
        .filter(|event| event.kind == "heldout_knn")
        .filter_map(|event| event.evidence.get("knn_top1")?.as_f64())
        .collect();
    match heldout[..] {
        [] => {}
        [only] => tile("Held-out kNN", format!("{only:.1}%"), String::new()),
        [first, .., last] => tile(
            "Held-out kNN",
            format!("{last:.1}%"),
            format!("{first:.1}% at the start"),
        ),
    }
    if let Some(rate) = median(&series(metrics, "images_per_second")) {
        let wait = mean(&series(metrics, "input_wait"));
        let note = wait.map_or(String::new(), |w| format!("input wait {:.1}%", 100.0 * w));
        tile("Images a second", format!("{rate:.0}"), note);
    }
    out + "</dl>\n"
}

fn charts(metrics: &[Map<String, Value>]) -> String {
    let mut figures = String::new();
    let mut figure = |title: &str, key: &str, guide: Option<(&str, &str)>, zero: bool| {
        let points = series(metrics, key);
        let compared = guide.map_or(vec![], |(key, _)| series(metrics, key));
        let lines = [
            Series {
                class: "guide",
                points: &compared,
            },
            Series {
                class: "line",
                points: &points,
            },
        ];
        let (Some(&(_, last)), Some(svg)) = (points.last(), chart(title, &lines, zero)) else {
            return;
        };
        let note = guide.map_or(String::new(), |(_, note)| format!(" ({note})"));
        let last: f64 = format!("{last:.3e}").parse().unwrap_or(last);
        let _ = writeln!(
            figures,
            "<figure class=\"card\"><figcaption>{title}<span>last {}{note}</span></figcaption>\
             {svg}</figure>",
            number(last)
        );
    };
    figure(
        "Loss",
        "loss",
        Some(("chance_loss", "dashed: chance")),
        false,
    );
    figure("kNN on training pictures, %", "knn_top1", None, false);
    figure("Gradient norm", "grad_norm", None, true);
    figure("Spread of outputs", "output_std", None, true);
    figure("Spread of features", "feature_std", None, true);
    figure("Effective rank of features", "effective_rank", None, true);
    figure("Queries that find their key", "key_found", None, true);
    figure("Learning rate", "lr", None, true);
    figure("Momentum of the key encoder", "momentum", None, false);
    figure("Images a second", "images_per_second", None, true);
    figure("Input wait, share of time", "input_wait", None, true);
    if figures.is_empty() {
        return "<p>No step has been recorded yet.</p>\n".into();
    }
    format!("<h2>Over the steps</h2>\n<div class=\"grid2\">\n{figures}</div>\n")
}

fn facts(config: &Value) -> String {
    let mut out = String::new();
    for (label, pointer) in FACTS {
        let text = match config.pointer(pointer) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let _ = writeln!(out, "<div><dt>{label}</dt><dd>{}</dd></div>", escape(&text));
    }
    if out.is_empty() {
        return out;
    }
    format!("<h2>What was run</h2>\n<dl class=\"card facts\">\n{out}</dl>\n")
}

fn event_list(events: &[Event]) -> String {
    if events.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h2>Events</h2>\n<ol class=\"card\">\n");
    let hidden = events.len().saturating_sub(MAX_EVENTS);
    if hidden > 0 {
        let _ = writeln!(
            out,
            "<li><span></span><div>{hidden} earlier ones are not shown.</div></li>"
        );
    }
    for event in &events[hidden..] {
        let (class, word) = match event.severity {
            Severity::Info => ("info", ""),
            Severity::Warning => ("warning", "<b>Warning.</b> "),
            Severity::Error => ("error", "<b>Error.</b> "),
        };
        let _ = writeln!(
            out,
            "<li class=\"{class}\"><span>step {}<br>{}</span><div>{word}{}</div></li>",
            event.step,
            escape(&event.time.replace('T', " ").replace('Z', "")),
            escape(&event.message)
        );
    }
    out + "</ol>\n"
}

/// (step, value) of the lines that have this number.
fn series(metrics: &[Map<String, Value>], key: &str) -> Vec<(f64, f64)> {
    let number = |line: &Map<String, Value>, key| line.get(key).and_then(Value::as_f64);
    let points = metrics
        .iter()
        .map(|line| Some((number(line, "step")?, number(line, key)?)));
    points.flatten().collect()
}

fn median(points: &[(f64, f64)]) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|&(_, value)| value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn mean(points: &[(f64, f64)]) -> Option<f64> {
    let sum: f64 = points.iter().map(|&(_, value)| value).sum();
    (!points.is_empty()).then(|| sum / points.len() as f64)
}

/// Text as it may stand in HTML, in content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{EventLog, MetricsWriter, Record};
    use super::*;
    use serde_json::json;

    fn run() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("my <run>")).unwrap();
        (folder, run)
    }

    fn text(run: &RunDir) -> String {
        std::fs::read_to_string(write_html(run).unwrap()).unwrap()
    }

    #[test]
    fn a_page_of_a_run() {
        let (_folder, run) = run();
        run.write_config(&json!({
            "method": {"name": "moco_v3"}, "data": {"path": "<script>alert(1)</script>"},
            "schedule": {"total_steps": 4},
        }))
        .unwrap();
        let mut metrics = MetricsWriter::open(&run, 0).unwrap();
        for (step, loss, knn) in [(1, 5.5, 20.0), (2, f32::NAN, 61.25), (3, 5.0, 40.0)] {
            let record = Record::new(step, 0.5)
                .f32("loss", loss)
                .f32("chance_loss", 5.545)
                .f32("knn_top1", knn)
                .f64("images_per_second", 100.0 * step as f64)
                .f64("input_wait", 0.25)
                .f64("seconds", 61.0 * step as f64);
            metrics.write(&record).unwrap();
        }
        let mut events = EventLog::open(&run, None).unwrap();
        for top1 in [12.5, 30.0, 45.5] {
            let evidence = json!({"knn_top1": top1}).as_object().unwrap().clone();
            events
                .append(0, "heldout_knn", Severity::Warning, "a < b", evidence)
                .unwrap();
        }
        let page = text(&run);
        for part in [
            "<h1>my &lt;run&gt;</h1>",
            "<dd>3 of 4<small>0.5 epochs, 3m 03s</small>",
            "<dd>5.000<small>chance 5.545",
            "<dd>61.2%<small>step 2,",
            "<dd>45.5%<small>12.5% at the start",
            "<dd>200<small>input wait 25.0%",
            "<dd>moco_v3</dd>",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "<b>Warning.</b> a &lt; b",
            "dashed: chance",
        ] {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
        // Nothing from outside, no markup of the data's, no chart without data.
        for part in ["<script", "http", "NaN", "Learning rate</", "url("] {
            assert!(!page.contains(part), "{part:?} in {page}");
        }
    }

    #[test]
    fn a_run_that_has_only_begun_has_a_page_too() {
        let (_folder, run) = run();
        let page = text(&run);
        assert!(page.contains("No step has been recorded yet"), "{page}");
        assert!(!page.contains("<svg"), "{page}");
    }
}

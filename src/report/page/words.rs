//! What a page says in words: verdicts, the numbers that count, events, the
//! configuration, the system.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::super::events::{Event, Severity};
use super::super::follow::{Follower, Phase};
use super::super::terminal::duration;
use super::escape;
use crate::monitor::{Health, Verdict};

/// The page lists so many events of a run, the newest; all are in
/// `events.jsonl`.
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

pub(super) fn subtitle(runs: &[Follower]) -> String {
    let text = match runs {
        [run] => {
            let title = run.config.pointer("/about/title").and_then(Value::as_str);
            let phase = match run.phase() {
                Phase::Going => "not ended",
                Phase::Ended => "ended",
                Phase::Failed => "failed",
            };
            let title = title.unwrap_or("A pre-training run of xla-moco");
            format!("{}, {phase}", escape(title))
        }
        _ => "Pre-training runs of xla-moco beside each other".into(),
    };
    format!("<p>{text}</p>")
}

/// Above the charts.
pub(super) fn above(runs: &[Follower]) -> String {
    match runs {
        [run] => verdict(&run.health()) + &tiles(run),
        runs => table(runs),
    }
}

fn class_of(health: &Health) -> &'static str {
    match health.verdict {
        Verdict::Healthy | Verdict::TooEarly => "info",
        Verdict::Unstable | Verdict::Degrading => "warning",
        _ => "error",
    }
}

fn verdict(health: &Health) -> String {
    let mut out = format!(
        "<h2>Health</h2>\n<div class=\"card verdict {}\"><b>{}</b>",
        class_of(health),
        health.verdict
    );
    for reason in &health.reasons {
        let _ = write!(out, "<p>{}</p>", escape(reason));
    }
    if health.step > 0 {
        let _ = write!(out, " <small>as of step {}</small>", health.step);
    }
    out + "</div>\n"
}

/// A quantity that the page says in short: value and note.
type Told = (String, String);

fn steps(run: &Follower) -> Told {
    let of = run
        .total_steps()
        .map_or(String::new(), |total| format!(" of {total}"));
    let epochs = run
        .columns
        .last("epoch")
        .map(|epoch| format!("{epoch:.1} epochs"));
    let seconds = run.columns.last("seconds");
    let seconds = seconds.and_then(|s| Duration::try_from_secs_f32(s).ok());
    let note: Vec<String> = epochs.into_iter().chain(seconds.map(duration)).collect();
    (format!("{}{of}", run.step()), note.join(", "))
}

fn loss(run: &Follower) -> Option<Told> {
    let (loss, chance) = (run.columns.last("loss")?, run.columns.last("chance_loss")?);
    Some((format!("{loss:.3}"), format!("chance {chance:.3}")))
}

fn best_knn(run: &Follower) -> Option<Told> {
    let (step, best) = run.columns.get("knn_top1")?.max()?;
    Some((
        format!("{best:.1}%"),
        format!("step {step}, on training pictures"),
    ))
}

fn held_out(run: &Follower) -> Option<Told> {
    let events = run
        .events
        .iter()
        .filter(|event| event.kind == "heldout_knn");
    let found: Vec<f64> = events
        .filter_map(|event| event.evidence.get("knn_top1")?.as_f64())
        .collect();
    match found[..] {
        [] => None,
        [only] => Some((format!("{only:.1}%"), String::new())),
        [first, .., last] => Some((format!("{last:.1}%"), format!("{first:.1}% at the start"))),
    }
}

fn speed(run: &Follower) -> Option<Told> {
    let rate = run.columns.get("images_per_second")?.median()?;
    let wait = run.columns.get("input_wait").and_then(|wait| wait.mean());
    let note = wait.map_or(String::new(), |w| format!("input wait {:.1}%", 100.0 * w));
    Some((format!("{rate:.0}"), note))
}

fn told(run: &Follower) -> [(&'static str, Option<Told>); 5] {
    [
        ("Steps", Some(steps(run))),
        ("Loss", loss(run)),
        ("Best kNN", best_knn(run)),
        ("Held-out kNN", held_out(run)),
        ("Images a second", speed(run)),
    ]
}

fn tiles(run: &Follower) -> String {
    let mut out = String::from("<dl class=\"tiles\">\n");
    for (term, told) in told(run) {
        let Some((value, note)) = told else {
            continue;
        };
        let _ = writeln!(
            out,
            "<div class=\"card\"><dt>{term}</dt><dd>{value}<small>{note}</small></dd></div>"
        );
    }
    out + "</dl>\n"
}

fn table(runs: &[Follower]) -> String {
    let mut out = String::from(
        "<h2>The runs</h2>\n<div class=\"card scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"The runs\"><table class=\"runs\"><thead><tr><th>Run</th><th>Health</th>",
    );
    for (term, _) in told(&runs[0]) {
        let _ = write!(out, "<th>{term}</th>");
    }
    out += "</tr></thead><tbody>\n";
    for (i, run) in runs.iter().enumerate() {
        let health = run.health();
        let _ = write!(
            out,
            "<tr><th><i class=\"run{i}\"></i>{}</th><td class=\"{}\"><b>{}</b><small>{}</small></td>",
            escape(run.name()),
            class_of(&health),
            health.verdict,
            escape(&health.reasons.join("; "))
        );
        for (_, told) in told(run) {
            let (value, note) = told.unwrap_or_else(|| ("–".into(), String::new()));
            let _ = write!(out, "<td>{value}<small>{note}</small></td>");
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

pub(super) fn events(runs: &[Follower]) -> String {
    let mut out = String::new();
    for (i, run) in runs.iter().enumerate() {
        if run.events.is_empty() {
            continue;
        }
        let trouble = |event: &&Event| event.severity != Severity::Info;
        let found = run.events.iter().filter(trouble).count();
        if runs.len() == 1 {
            let _ = write!(
                out,
                "<h2 id=\"events-title\">Events</h2>\n<label class=\"only\"><input type=\"checkbox\" \
                 id=\"trouble\"> warnings and errors only ({found})</label>\n"
            );
            list(&mut out, &run.events);
        } else {
            let _ = write!(
                out,
                "{}<details class=\"card\" id=\"events-{i}\"><summary>{}: {found} warnings and \
                 errors, {} events</summary>",
                if out.is_empty() {
                    "<h2>Events</h2>\n"
                } else {
                    ""
                },
                escape(run.name()),
                run.events.len()
            );
            list(&mut out, &run.events);
            out += "</details>\n";
        }
    }
    out
}

fn list(out: &mut String, events: &[Event]) {
    out.push_str("<ol class=\"card events\">\n");
    let hidden = events.len().saturating_sub(MAX_EVENTS);
    if hidden > 0 {
        let _ = writeln!(
            out,
            "<li class=\"note\"><span></span><div>{hidden} earlier ones are in events.jsonl.</div></li>"
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
            "<li class=\"{class}\"><span>step {} <small>{}</small></span><div>{word}{} \
             <small>{}</small></div></li>",
            event.step,
            escape(&event.time.replace('T', " ").replace('Z', "")),
            escape(&event.message),
            escape(&event.kind.replace('_', " "))
        );
    }
    out.push_str("</ol>\n");
}

/// Below the charts: what was run and on what.
pub(super) fn below(runs: &[Follower]) -> String {
    let mut out = String::new();
    for (i, run) in runs.iter().enumerate() {
        let (open, close) = match runs.len() {
            1 => (String::new(), ""),
            _ => (
                format!(
                    "<details class=\"run\" id=\"run-{i}\"><summary>{}: what was run, the system, \
                     the configuration</summary>",
                    escape(run.name())
                ),
                "</details>\n",
            ),
        };
        out += &open;
        out += &facts(&run.config);
        out += &system(run);
        if !run.config.is_null() {
            let _ = write!(
                out,
                "<h2>Config</h2>\n<details class=\"card\" id=\"config-{i}\"><summary>config.json, \
                 as resolved</summary><pre tabindex=\"0\">{}</pre></details>\n",
                escape(&format!("{:#}", run.config))
            );
        }
        out += close;
    }
    out
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

/// What the newest start said of plugin, devices and compilation.
fn system(run: &Follower) -> String {
    let newest = |kind: &str| run.events.iter().rev().find(|event| event.kind == kind);
    let mut out = String::new();
    for (label, kind) in [
        ("Plugin and devices", "plugin"),
        ("Train step", "compile"),
        ("Data and length", "started"),
    ] {
        if let Some(event) = newest(kind) {
            let text = escape(&event.message);
            let _ = writeln!(
                out,
                "<div class=\"wide\"><dt>{label}</dt><dd>{text}</dd></div>"
            );
        }
    }
    if let Some(bytes) = newest("compile").and_then(|e| e.evidence.get("temp_bytes")?.as_f64()) {
        let _ = writeln!(
            out,
            "<div><dt>Working memory of a step</dt><dd>{:.0} MB</dd></div>",
            bytes / 1e6
        );
    }
    if out.is_empty() {
        return out;
    }
    format!("<h2>System</h2>\n<dl class=\"card facts\">\n{out}</dl>\n")
}

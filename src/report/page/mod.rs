//! The report: one run, or up to six beside each other, on one page.
//!
//! The page is one file: its style, script and numbers are in it, and its
//! content security policy forbids the browser to ask for anything else.

mod data;
mod differences;
mod words;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::follow::Follower;
use crate::bad_input;
use crate::checkpoint::{RunDir, atomic};

/// More runs no eye tells apart.
const MOST_RUNS: usize = 6;

/// What runs of different batches are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    #[default]
    Step,
    /// Pictures seen: steps times batch.
    Samples,
}

impl Align {
    fn name(self) -> &'static str {
        match self {
            Align::Step => "step",
            Align::Samples => "samples",
        }
    }
}

/// Writes `report.html`, from the files of the run's folder alone; returns
/// its path.
pub fn write_html(run: &RunDir) -> Result<PathBuf> {
    let follower = Follower::read(run.clone())?;
    let path = run.report_path();
    write_report(&[follower], &path)?;
    Ok(path)
}

pub(super) fn write_report(runs: &[Follower], path: &Path) -> Result<()> {
    atomic::write_file(path, page(runs, Align::Step, false).as_bytes())
}

/// Writes a page of these runs' folders; of one alone it is its report.
///
/// # Errors
/// None or more than six runs, folders that are no run's, runs without
/// metrics; samples, where a configuration does not say the batch (bad input).
pub fn compare(folders: &[PathBuf], align: Align, out: &Path) -> Result<()> {
    if folders.is_empty() || folders.len() > MOST_RUNS {
        return Err(bad_input!(
            "found {} run folders; expected 1 to {MOST_RUNS}",
            folders.len()
        ));
    }
    let mut runs = Vec::new();
    for folder in folders {
        let run = Follower::read(RunDir::open(folder)?)?;
        if run.step() == 0 {
            return Err(bad_input!(
                "{} has no metrics yet: its first step is not done; expected at least one line \
                 in metrics.jsonl",
                folder.display()
            ));
        }
        if align == Align::Samples && run.config.pointer("/batch").is_none() {
            return Err(bad_input!(
                "{} cannot be aligned by samples: its config.json does not say the batch; use \
                 --align step",
                folder.display()
            ));
        }
        runs.push(run);
    }
    distinct_names(&mut runs, folders);
    atomic::write_file(out, page(&runs, align, false).as_bytes())
}

/// Folders of the same name are told apart by the path that was given, and
/// the same path twice by a number.
fn distinct_names(runs: &mut [Follower], folders: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name().to_owned()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == names[i]).count() == 1 {
            continue;
        }
        let earlier = folders[..i].iter().filter(|f| **f == folders[i]).count();
        let path = folders[i].display();
        run.set_name(match earlier {
            0 => path.to_string(),
            n => format!("{path} ({})", n + 1),
        });
    }
}

/// The page of one run, or of several. `live`: the page asks where it comes
/// from for newer numbers; otherwise nothing can be asked for.
pub fn page(runs: &[Follower], align: Align, live: bool) -> String {
    let title = match runs {
        [run] => escape(run.name()),
        _ => format!("{} runs", runs.len()),
    };
    let connect = if live { "connect-src 'self'; " } else { "" };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; {connect}\
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'none'\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("style.css"),
    );
    let _ = write!(
        out,
        "<header><div><h1>{title}</h1>\n{}</div>\
         <button id=\"theme\" type=\"button\">Theme: system</button></header>\n<main>\n",
        words::subtitle(runs)
    );
    let _ = write!(out, "<div id=\"above\">\n{}</div>\n", words::above(runs));
    out.push_str(
        "<noscript><p>The charts need JavaScript, which is part of this file. The numbers are in \
         metrics.jsonl.</p></noscript>\n\
         <div id=\"bar\" role=\"toolbar\" aria-label=\"What the charts show\" hidden></div>\n\
         <div id=\"charts\"></div>\n",
    );
    let _ = write!(
        out,
        "<div id=\"below\">\n{}{}{}</div>\n</main>\n",
        words::events(runs),
        differences::sections(runs),
        words::below(runs)
    );
    let _ = write!(
        out,
        "<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}{}{}</script>\n\
         </body>\n</html>\n",
        data::json(runs, align, live),
        include_str!("charts.js"),
        include_str!("page.js"),
        include_str!("controls.js")
    );
    out
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

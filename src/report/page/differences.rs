//! What sets runs apart from the paper's recipe, and from each other.

use std::fmt::Write;

use serde_json::Value;

use super::super::follow::Follower;
use super::escape;
use crate::config::{Difference, Effect, RunConfig, differences, nearest_recipe};

/// Longer values are cut: a page is no place for a file.
const LONGEST: usize = 120;

pub(super) fn sections(runs: &[Follower]) -> String {
    match runs {
        [run] => against_the_paper(run),
        runs => against_each_other(runs),
    }
}

fn against_the_paper(run: &Follower) -> String {
    let mut out = String::from("<h2>Beside the paper's recipe</h2>\n");
    let config = match RunConfig::from_value(run.config.clone()) {
        Ok(config) => config,
        Err(_) => return out + "<p>The run has no configuration that can be read.</p>\n",
    };
    let Some(recipe) = nearest_recipe(&config) else {
        return out + "<p>The paper has no recipe of pre-training by this method.</p>\n";
    };
    let mut found = differences(&recipe.config, &config);
    found.retain(|difference| !difference.key.starts_with("about"));
    let (matter, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|d| d.effect == Effect::Run);
    let name = recipe.name;
    if matter.is_empty() {
        let _ = writeln!(out, "<p>The recipe of configs/paper/{name}.json.</p>");
    } else {
        let _ = writeln!(
            out,
            "<p>configs/paper/{name}.json is the nearest. {} from it in what makes a run:</p>\n{}",
            counted(matter.len()),
            against(&matter)
        );
    }
    if !rest.is_empty() {
        let _ = writeln!(
            out,
            "<details class=\"card\" id=\"harmless\"><summary>{} in what changes no result, \
             or its last bits alone</summary>{}</details>",
            counted(rest.len()),
            against(&rest)
        );
    }
    out
}

fn counted(n: usize) -> String {
    match n {
        1 => "1 key differs".into(),
        n => format!("{n} keys differ"),
    }
}

fn against(differences: &[Difference]) -> String {
    let mut out = String::from(
        "<div class=\"card scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Differences\">\
         <table><thead><tr><th>Key</th><th>Paper</th><th>This run</th></tr></thead><tbody>\n",
    );
    for difference in differences {
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td>{}</td><td>{}</td></tr>",
            escape(&difference.key),
            value(&difference.old),
            value(&difference.new)
        );
    }
    out + "</tbody></table></div>\n"
}

fn against_each_other(runs: &[Follower]) -> String {
    let mut out = String::from("<h2>How the configurations differ</h2>\n");
    let configs: Vec<RunConfig> = runs
        .iter()
        .filter_map(|run| RunConfig::from_value(run.config.clone()).ok())
        .collect();
    let (true, Some(first)) = (configs.len() == runs.len(), configs.first()) else {
        return out + "<p>Not all runs have a configuration that can be read.</p>\n";
    };
    let all: Vec<Vec<Difference>> = configs[1..]
        .iter()
        .map(|config| differences(first, config))
        .collect();
    // In the order of the keys, each once, with the first run's value.
    let mut rows: Vec<&Difference> = Vec::new();
    for difference in all.iter().flatten() {
        let known = rows.iter().any(|row| row.key == difference.key);
        if !known && !difference.key.starts_with("about") {
            rows.push(difference);
        }
    }
    if rows.is_empty() {
        return out + "<p>They do not.</p>\n";
    }
    rows.sort_by_key(|row| row.effect != Effect::Run);
    out += "<div class=\"card scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Differences\">\
            <table><thead><tr><th>Key</th>";
    for run in runs {
        let _ = write!(out, "<th>{}</th>", escape(run.name()));
    }
    out += "</tr></thead><tbody>\n";
    for row in rows {
        let class = if row.effect == Effect::Run {
            ""
        } else {
            " class=\"soft\""
        };
        let _ = write!(
            out,
            "<tr{class}><th>{}</th><td>{}</td>",
            escape(&row.key),
            value(&row.old)
        );
        for differences in &all {
            let own = differences.iter().find(|d| d.key == row.key);
            let _ = write!(out, "<td>{}</td>", value(own.map_or(&row.old, |d| &d.new)));
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n<p>Grey keys change no result, or its last bits alone.</p>\n"
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", escape(&text[..end])),
        None => escape(&text),
    }
}

//! Pages whose numbers are taken from the ledger.
//!
//! In a template `{{ID NUMBER}}` stands for a number of an experiment: the mean
//! over its seeds and the mean's standard error. `{{ID NUMBER | FORM}}` gives
//! another form of it: `mean`, `seeds` (all values in the order of their seeds),
//! `seed N`. `{{ID NUMBER - ID NUMBER}}` is a difference, with its sign, seed by
//! seed where both have the same seeds; its form `errors` says how many of its
//! standard errors it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Ledger, Number, mean_and_error};
use crate::bad_input;

/// Templates lie beside the ledger, the pages in this folder beside that one.
const PAGES: &str = "docs/results";

/// The pages' paths and texts, of all templates beside the ledger, by name.
///
/// # Errors
/// [`bad_input!`] for a template that names what is not there, or that has a
/// number of its own in a table.
pub fn pages(ledger: &Ledger) -> Result<Vec<(PathBuf, String)>> {
    let folder = ledger.path.parent().unwrap_or(Path::new("."));
    let root = folder.parent().unwrap_or(Path::new("."));
    let mut templates: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    templates.retain(|path| path.extension().is_some_and(|end| end == "md"));
    templates.sort();
    let page = |path: &PathBuf| {
        let name = path.file_name().context("a template has a name")?;
        let text = fs::read_to_string(path)?;
        let text = filled(&text, ledger).with_context(|| path.display().to_string())?;
        let note = format!(
            "<!-- Made by `xla-moco reproduce --docs` of results/{} and results/ledger.jsonl: \
             change those. -->\n",
            name.to_string_lossy()
        );
        Ok((root.join(PAGES).join(name), note + &text))
    };
    templates.iter().map(page).collect()
}

/// A template with its numbers.
fn filled(template: &str, ledger: &Ledger) -> Result<String> {
    let mut text = String::new();
    for (at, line) in template.lines().enumerate() {
        let number = at + 1;
        let mut rest = line;
        let mut own = String::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after
                .split_once("}}")
                .ok_or_else(|| bad_input!("line {number}: {{{{ without }}}}"))?;
            let value =
                value(inside, ledger).with_context(|| format!("line {number}: {inside}"))?;
            text += before;
            text += &value;
            own += before;
            rest = after;
        }
        text += rest;
        text.push('\n');
        own += rest;
        if line.trim_start().starts_with('|') && has_decimal(&own) {
            return Err(bad_input!(
                "line {number}: a table's numbers are taken from the ledger: {line}"
            ));
        }
    }
    Ok(text)
}

/// Whether there is a number like 1.5 outside of code.
fn has_decimal(line: &str) -> bool {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let bytes = outside.as_bytes();
    bytes
        .windows(3)
        .any(|three| three[0].is_ascii_digit() && three[1] == b'.' && three[2].is_ascii_digit())
}

/// What stands for `ID NUMBER [- ID NUMBER] [| FORM]`.
fn value(inside: &str, ledger: &Ledger) -> Result<String> {
    let (what, form) = match inside.split_once('|') {
        Some((what, form)) => (what.trim(), form.trim()),
        None => (inside.trim(), ""),
    };
    match what.split_once(" - ") {
        Some((a, b)) => difference(find(a, ledger)?, find(b, ledger)?, form),
        None => alone(find(what, ledger)?, form),
    }
}

fn find<'a>(what: &str, ledger: &'a Ledger) -> Result<&'a Number> {
    let (id, name) = what
        .trim()
        .split_once(' ')
        .ok_or_else(|| bad_input!("expected an experiment and a number of it, found {what}"))?;
    let entry = ledger.get(id)?;
    let number = entry.numbers.get(name.trim()).ok_or_else(|| {
        let names: Vec<&str> = entry.numbers.keys().map(String::as_str).collect();
        bad_input!("{id} has no number {name}, but {}", names.join(", "))
    })?;
    match number.seeds.is_empty() {
        true => Err(bad_input!("{what} is not measured yet")),
        false => Ok(number),
    }
}

fn alone(number: &Number, form: &str) -> Result<String> {
    let digits = number.digits;
    let (mean, error) = mean_and_error(&number.values());
    let with_error = || match error {
        Some(error) => format!("{mean:.digits$} ± {error:.digits$}"),
        None => format!("{mean:.digits$}"),
    };
    Ok(match form {
        "" => with_error(),
        "mean" => format!("{mean:.digits$}"),
        "seeds" => {
            let all = number.values().into_iter();
            all.map(|x| format!("{x:.digits$}"))
                .collect::<Vec<_>>()
                .join(", ")
        }
        _ => {
            let seed = form
                .strip_prefix("seed ")
                .and_then(|seed| seed.parse().ok());
            let seed: u64 = seed.ok_or_else(|| {
                bad_input!("expected the form mean, seeds or seed N, found {form}")
            })?;
            let value = number.seeds.get(&seed);
            let value = value.ok_or_else(|| bad_input!("there is no seed {seed}"))?;
            format!("{value:.digits$}")
        }
    })
}

fn difference(a: &Number, b: &Number, form: &str) -> Result<String> {
    let (mean, error) = match a.seeds.keys().eq(b.seeds.keys()) {
        true => {
            let each = a.values().into_iter().zip(b.values()).map(|(a, b)| a - b);
            mean_and_error(&each.collect::<Vec<_>>())
        }
        false => {
            let ((a, of_a), (b, of_b)) = (mean_and_error(&a.values()), mean_and_error(&b.values()));
            let both = of_a.zip(of_b).map(|(a, b)| a.hypot(b));
            (a - b, both)
        }
    };
    let digits = a.digits;
    match (form, error) {
        ("", Some(error)) => Ok(format!("{mean:+.digits$} ± {error:.digits$}")),
        ("", None) | ("mean", _) => Ok(format!("{mean:+.digits$}")),
        ("errors", Some(error)) => Ok(format!("{:.0}", mean / error)),
        ("errors", None) => Err(bad_input!("there is one seed only, and no standard error")),
        _ => Err(bad_input!("expected the form mean or errors, found {form}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Entry;
    use std::collections::BTreeMap;

    fn ledger() -> Ledger {
        let number = |seeds: &[(u64, f64)]| Number {
            unit: "%".into(),
            digits: 1,
            within: 1.0,
            read: None,
            seeds: seeds.iter().copied().collect(),
        };
        let numbers = [
            ("before", number(&[(0, 30.0), (1, 31.0), (2, 32.0)])),
            ("after", number(&[(0, 40.0), (1, 42.0), (2, 44.0)])),
            ("once", number(&[(0, 12.345)])),
            ("never", number(&[])),
        ];
        let numbers: BTreeMap<String, Number> = numbers
            .into_iter()
            .map(|(name, of)| (name.to_owned(), of))
            .collect();
        let entry = Entry {
            id: "a/b".into(),
            what: String::new(),
            source: None,
            commands: Vec::new(),
            exit: 0,
            data: None,
            protocol: Default::default(),
            numbers,
            runs: Default::default(),
        };
        Ledger {
            path: "results/ledger.jsonl".into(),
            entries: vec![entry],
        }
    }

    #[test]
    fn numbers_in_their_forms() {
        for (inside, expected) in [
            ("a/b after", "42.0 ± 1.2"),
            ("a/b after | mean", "42.0"),
            ("a/b after | seeds", "40.0, 42.0, 44.0"),
            ("a/b after | seed 2", "44.0"),
            ("a/b once", "12.3"),
            // 10, 11, 12: a mean of 11, a deviation of 1.
            ("a/b after - a/b before", "+11.0 ± 0.6"),
            ("a/b after - a/b before | errors", "19"),
            ("a/b before - a/b once", "+18.7"),
        ] {
            assert_eq!(value(inside, &ledger()).unwrap(), expected, "{inside}");
        }
        for (inside, words) in [
            ("a/c after", "the nearest is a/b"),
            ("a/b afterwards", "has no number afterwards"),
            ("a/b never", "not measured yet"),
            ("a/b after | median", "expected the form"),
            ("a/b after | seed 7", "no seed 7"),
            ("a/b", "an experiment and a number"),
        ] {
            let error = format!("{:#}", value(inside, &ledger()).unwrap_err());
            assert!(error.contains(words), "{inside}: {error}");
        }
    }

    #[test]
    fn tables_have_no_numbers_of_their_own() {
        let good = "at .5 or 1.5\n| `lr 1.5` | {{a/b once}} | 300 |\n";
        assert_eq!(
            filled(good, &ledger()).unwrap(),
            "at .5 or 1.5\n| `lr 1.5` | 12.3 | 300 |\n"
        );
        for (bad, words) in [
            ("| 1.5 |", "taken from the ledger"),
            ("{{a/b once", "without"),
        ] {
            let error = format!("{:#}", filled(bad, &ledger()).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}

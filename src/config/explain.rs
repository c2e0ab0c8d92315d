//! Stage 1's errors in words, and the schema that knows every key.

use anyhow::{Error, Result};
use serde_json::Value;

use super::Written;
use crate::bad_input;

/// The JSON Schema (draft 2020-12) of a configuration file, for editors.
pub fn schema() -> Value {
    // A file with a `base` may leave out anything: no key is required of one.
    let optional = |schema: &mut schemars::Schema| {
        schema.remove("required");
    };
    // Inlined, since sections are used once and editors show them better.
    schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(schemars::transform::RecursiveTransform(optional))
        .into_generator()
        .into_root_schema_for::<Written>()
        .to_value()
}

/// JSON to stage 1.
///
/// # Errors
/// Says which key is wrong, what was found there and what was expected.
pub(super) fn parse(value: Value) -> Result<Written> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner().to_string())
    })
}

/// Turns serde's message about `path` into ours.
fn explain(path: &str, message: &str) -> Error {
    let at = |key: &str| match path {
        "." => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        return unknown_key(path);
    }
    if let ("missing field", Some(name)) = (before_tick(message), names.first()) {
        return bad_input!("`{}` is missing, and has no default", at(name));
    }
    if let ("unknown variant", Some((found, known))) = (before_tick(message), names.split_first()) {
        let hint = nearest(found, known.iter().copied())
            .map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        return bad_input!(
            "`{path}` is \"{found}\"; expected {}{hint}",
            known.join(" or ")
        );
    }
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        let parts = message
            .strip_prefix(kind)
            .and_then(|rest| rest.split_once(", expected "));
        if let Some((found, expected)) = parts {
            let length = if kind == "invalid length " {
                "length "
            } else {
                ""
            };
            return bad_input!(
                "`{path}`: found {length}{found}; expected {}",
                plain(expected)
            );
        }
    }
    bad_input!("`{path}`: {message}")
}

fn before_tick(message: &str) -> &str {
    message.split('`').next().unwrap_or("").trim_end()
}

/// serde's names of Rust types in words.
fn plain(expected: &str) -> &str {
    match expected {
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        "string or map" => "a word in quotes",
        "a map" => "an object {...}",
        name if name.starts_with("struct ") => "an object {...}",
        other => other,
    }
}

fn unknown_key(path: &str) -> Error {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    // Keys are known for all entries of a list alike.
    let section = match parent.split_once('[').zip(parent.split_once(']')) {
        Some(((list, _), (_, rest))) => format!("{list}[]{rest}"),
        None => parent.to_owned(),
    };
    let known = known_keys();
    let split = |key: &'_ str| match key.rsplit_once('.') {
        Some((parent, name)) => (parent.to_owned(), name.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let siblings: Vec<String> = known
        .iter()
        .map(|key| split(key))
        .filter(|(parent, _)| *parent == section)
        .map(|(_, name)| name)
        .collect();
    // First a slip of the pen in this section, then a key of another one.
    let suggestion = match nearest(name, siblings.iter().map(String::as_str)) {
        Some(near) if parent.is_empty() => Some(near.to_owned()),
        Some(near) => Some(format!("{parent}.{near}")),
        None => known.iter().find(|key| split(key).1 == name).cloned(),
    };
    let hint = suggestion.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    let place = match parent {
        "" => "the top level".to_owned(),
        section => format!("`{section}`"),
    };
    bad_input!(
        "unknown key `{path}`{hint} (known keys of {place}: {})",
        siblings.join(", ")
    )
}

/// The candidate that `word` is most likely a misspelling of.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The path of every key, sections included, in the schema's order; `[]`
/// stands for each entry of a list.
pub(super) fn known_keys() -> Vec<String> {
    fn walk(schema: &Value, prefix: &str, keys: &mut Vec<String>) {
        // An optional section is written as "this or null".
        for option in schema["anyOf"].as_array().into_iter().flatten() {
            walk(option, prefix, keys);
        }
        if schema["items"]["properties"].is_object() {
            walk(&schema["items"], &format!("{prefix}[]"), keys);
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let key = match prefix {
                "" => name.clone(),
                prefix => format!("{prefix}.{name}"),
            };
            keys.push(key.clone());
            walk(schema, &key, keys);
        }
    }
    let mut keys = Vec::new();
    walk(&schema(), "", &mut keys);
    keys
}

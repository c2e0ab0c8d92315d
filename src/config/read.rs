//! Files, their bases, and overrides: everything before stage 1.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::bad_input;

/// No configuration is anywhere near as long.
const MOST_BYTES: u64 = 1 << 20;
/// Files in a chain of bases.
const MOST_FILES: usize = 8;

/// One `--set a.b=JSON`. A bare word that is no JSON is a string.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Keys joined by dots.
    pub key: String,
    pub value: Value,
}

impl Override {
    /// An override from a value that is not text.
    pub fn new(key: &str, value: impl Into<Value>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.into(),
        }
    }
}

impl FromStr for Override {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(bad_input!(
                "found {text:?}; expected KEY=JSON, such as optimizer.base_lr=1e-3"
            ));
        };
        if key.split('.').any(|part| part.trim().is_empty()) {
            return Err(bad_input!(
                "found the key {key:?}; expected names joined by dots, such as optimizer.base_lr"
            ));
        }
        let value = match serde_json::from_str(value) {
            Ok(json) => json,
            // What begins as JSON must be JSON: a slip in it is no string.
            Err(error) if value.starts_with(['{', '[', '"']) => {
                return Err(bad_input!("{value} is not valid JSON: {error}"));
            }
            Err(_) => Value::String(value.to_owned()),
        };
        Ok(Self::new(key, value))
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// The file's JSON over that of its `base`, and so on down the chain.
///
/// # Errors
/// [`bad_input!`] for a file that cannot be read or is no JSON object, and for a
/// base that leads astray.
pub fn merged(path: &Path) -> Result<Value> {
    let mut layers = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next.take() {
        let real = path
            .canonicalize()
            .map_err(|error| bad_input!("cannot open {}: {error}", path.display()))?;
        if seen.contains(&real) {
            return Err(bad_input!(
                "`base` leads back to {}: a file cannot be its own base",
                path.display()
            ));
        }
        if seen.len() == MOST_FILES {
            return Err(bad_input!(
                "more than {MOST_FILES} files follow one another through `base`"
            ));
        }
        seen.push(real);
        let mut object = object(&path)?;
        if let Some(base) = object.shift_remove("base").filter(|base| !base.is_null()) {
            next = Some(base_path(&path, &base).with_context(|| format!("in {}", path.display()))?);
        }
        layers.push(object);
    }
    let lowest = layers.pop().expect("the file itself is a layer");
    let mut result = Value::Object(lowest);
    while let Some(layer) = layers.pop() {
        merge(&mut result, Value::Object(layer));
    }
    Ok(result)
}

/// Reads one file, which must hold a JSON object.
fn object(path: &Path) -> Result<Map<String, Value>> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| bad_input!("cannot read {}: {error}", path.display()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(bad_input!(
            "{} is longer than {MOST_BYTES} bytes: not a configuration",
            path.display()
        ));
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad_input!(
            "{} holds JSON, but no object {{...}} of keys",
            path.display()
        )),
        Err(error) => Err(bad_input!("{} is not valid JSON: {error}", path.display())),
    }
}

/// Where a `base` points. It stays near its file: relative, at most one
/// folder up, also behind symbolic links.
fn base_path(file: &Path, base: &Value) -> Result<PathBuf> {
    let Value::String(base) = base else {
        return Err(bad_input!(
            "`base` is {base}; expected a path relative to the file"
        ));
    };
    let escapes = || {
        bad_input!(
            "`base` is {base:?}; expected a relative path inside the file's folder or the folder \
             above it, such as \"../base.json\""
        )
    };
    let mut parts = Path::new(base).components();
    let first_ok = matches!(
        parts.next(),
        Some(Component::Normal(_) | Component::CurDir | Component::ParentDir)
    );
    if !first_ok || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return Err(escapes());
    }
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let path = folder.join(base);
    let open = |error| bad_input!("cannot open the `base` {}: {error}", path.display());
    let real = path.canonicalize().map_err(open)?;
    let root = folder.join("..").canonicalize().map_err(open)?;
    if real.starts_with(root) {
        Ok(path)
    } else {
        Err(escapes())
    }
}

/// One configuration's JSON laid over another's.
pub fn layered(mut under: Value, over: Value) -> Value {
    merge(&mut under, over);
    under
}

/// Lays `over` on `under`: objects key by key, anything else whole.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (under, over) => *under = over,
    }
}

/// Sets each override's key, making sections on the way.
pub(super) fn apply(mut value: Value, overrides: &[Override]) -> Result<Value> {
    for entry in overrides {
        let mut slot = &mut value;
        let mut path = String::new();
        for part in entry.key.split('.') {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(object) = slot else {
                return Err(bad_input!(
                    "cannot set `{entry}`: `{path}` is {slot}, which has no keys inside"
                ));
            };
            slot = object.entry(part).or_insert(Value::Null);
            path += if path.is_empty() { "" } else { "." };
            path += part;
        }
        *slot = entry.value.clone();
    }
    Ok(value)
}

/// Drops every key whose value is null.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        other => other,
    }
}

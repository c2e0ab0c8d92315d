//! The files of the python version: dictionaries of `data`, an array of a row
//! for each picture, and `labels` (CIFAR-100: `fine_labels`).

use anyhow::{Context, Result, bail, ensure};

use super::FORM;
use crate::pickle::{Pickle, Value};

/// The names of the classes in `batches.meta` or `meta`.
pub fn names(bytes: &[u8]) -> Result<Vec<String>> {
    let pickle = Pickle::read_arrays(bytes)?;
    let mut entries = pickle
        .entries(pickle.root())
        .context("it is no dictionary")?;
    let names = entries.find(|(key, _)| ["label_names", "fine_label_names"].contains(key));
    let Some(Value::List(names)) = names.map(|(_, names)| pickle.value(names)) else {
        bail!("it has no list of class names");
    };
    let text = |id| match pickle.value(id) {
        Value::Text(name) => Ok(name.to_string()),
        _ => bail!("a class has no name"),
    };
    names.iter().map(|id| text(*id)).collect()
}

/// Where the pixels of a pickled file begin, and the labels.
pub fn records(bytes: &[u8]) -> Result<(u64, Vec<i64>)> {
    let pickle = Pickle::read_arrays(bytes)?;
    let (mut data, mut labels) = (None, None);
    for (name, id) in pickle
        .entries(pickle.root())
        .context("it is no dictionary")?
    {
        match pickle.value(id) {
            Value::Array(array) if name == "data" => data = Some(array),
            Value::List(list) if name == "labels" || name == "fine_labels" => labels = Some(list),
            _ => {}
        }
    }
    let data = data.context("it has no array `data`")?;
    let labels = labels.context("it has no list `labels` or `fine_labels`")?;
    let expected = labels.len() * FORM.bytes() as usize;
    ensure!(
        !labels.is_empty() && data.data.len == expected,
        "it has {} labels, so {expected} bytes of pixels are expected; it has {} in an array of \
         {:?}",
        labels.len(),
        data.data.len,
        data.shape
    );
    let label = |id| match pickle.value(id) {
        Value::Int(label) => Ok(*label),
        _ => bail!("a label is no number"),
    };
    let labels = labels.iter().map(|id| label(*id)).collect::<Result<_>>()?;
    Ok((data.data.at as u64, labels))
}

//! `corrupt.jsonl`: the run's pictures that cannot be decoded, each once.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::checkpoint::{RunDir, atomic};
use crate::data::Corrupt;

/// The list, by the pictures' names. There is no file while it is empty.
pub struct CorruptList {
    path: PathBuf,
    errors: BTreeMap<String, String>,
}

impl CorruptList {
    /// Goes on with the list that is there, or begins a new one.
    pub fn open(run: &RunDir, goes_on: bool) -> Result<Self> {
        let path = run.root().join("corrupt.jsonl");
        let context = || format!("cannot read {}", path.display());
        let mut errors = BTreeMap::new();
        if goes_on {
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                read => read.with_context(context)?,
            };
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            errors.extend(lines.filter_map(|line: Value| {
                let text = |key: &str| Some(line.get(key)?.as_str()?.to_owned());
                Some((text("name")?, text("error")?))
            }));
        } else if path.exists() {
            fs::remove_file(&path).with_context(context)?;
        }
        Ok(Self { path, errors })
    }

    /// Adds pictures; gives those that are new.
    pub fn add<'a>(&mut self, pictures: &'a [Corrupt]) -> Result<Vec<&'a Corrupt>> {
        let mut new = Vec::new();
        for picture in pictures {
            let error = picture.error.clone();
            if self.errors.insert(picture.name.clone(), error).is_none() {
                new.push(picture);
            }
        }
        if !new.is_empty() {
            let lines = self.errors.iter();
            let text: String = lines
                .map(|(name, error)| format!("{}\n", json!({ "name": name, "error": error })))
                .collect();
            atomic::write_file(&self.path, text.as_bytes())?;
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_is_new_once_also_after_a_resume() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let corrupt = |name: &str| Corrupt {
            id: 0,
            name: name.into(),
            error: "cut \"short\"".into(),
            replacement: None,
        };
        let (a, b) = (corrupt("a.jpg"), corrupt("b.jpg"));
        let mut list = CorruptList::open(&run, false).unwrap();
        assert_eq!(list.add(&[b.clone(), b.clone()]).unwrap(), [&b]);
        let mut list = CorruptList::open(&run, true).unwrap();
        assert_eq!(list.add(&[a.clone(), b.clone()]).unwrap(), [&a]);
        let text = fs::read_to_string(run.root().join("corrupt.jsonl")).unwrap();
        let first = r#"{"name":"a.jpg","error":"cut \"short\""}"#;
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!(text.lines().count(), 2);
        CorruptList::open(&run, false).unwrap();
        assert!(!run.root().join("corrupt.jsonl").exists());
    }
}

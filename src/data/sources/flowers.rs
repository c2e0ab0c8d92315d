//! Oxford Flowers-102 (Nilsback and Zisserman, ICVGIP 2008): `jpg/`, the
//! labels in `imagelabels.mat`, the splits in `setid.mat`. Its classes have
//! numbers, 1 to 102. Training pictures are `trnid` and `valid`, as those who
//! report transfer take them; test pictures are `tstid`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::listed::{Listed, all_there};
use super::{Opened, half_there, read_small};
use crate::bad_input;
use crate::data::dataset::Part;
use crate::data::mat::{self, Variable};

const LABELS: &str = "imagelabels.mat";
const SPLITS: &str = "setid.mat";
/// More than the data set has, of either.
const MAX_CLASSES: usize = 1000;
const MAX_PICTURES: usize = 99_999;

/// Its folder at or directly below `path`.
pub fn find(path: &Path) -> Option<PathBuf> {
    let below = ["", "flowers102", "flowers-102"].map(|folder| path.join(folder));
    let has = |folder: &PathBuf| {
        [LABELS, SPLITS]
            .iter()
            .any(|name| folder.join(name).is_file())
    };
    below.into_iter().find(has)
}

/// Opens a folder that [`find`] gave.
///
/// # Errors
/// [`bad_input!`] if something is missing or broken.
pub fn open(folder: &Path, part: Part) -> Result<Option<Opened>> {
    let names = [LABELS, SPLITS, "jpg"];
    half_there("Oxford Flowers-102", "flowers102", folder, &names, |name| {
        folder.join(name).exists()
    })?;
    let labels = counts(&folder.join(LABELS), &["labels"])?;
    let highest = labels.iter().copied().max().unwrap_or(0);
    let lowest = labels.iter().copied().min().unwrap_or(0);
    if labels.len() > MAX_PICTURES || lowest == 0 || highest > MAX_CLASSES {
        return Err(bad_input!(
            "{} has {} labels from {lowest} to {highest}; expected at most {MAX_PICTURES}, from 1 \
             to {MAX_CLASSES}",
            folder.join(LABELS).display(),
            labels.len()
        ));
    }
    let splits = folder.join(SPLITS);
    let mut ids = match part {
        Part::All => (1..=labels.len()).collect(),
        Part::Train | Part::Unlabelled => counts(&splits, &["trnid", "valid"])?,
        Part::Test => counts(&splits, &["tstid"])?,
    };
    ids.sort_unstable();
    ids.dedup();
    let mut pictures = Vec::new();
    for id in ids {
        let label = id.checked_sub(1).and_then(|at| labels.get(at));
        let label = label.ok_or_else(|| {
            bad_input!(
                "{} names picture {id}, but {LABELS} has labels for 1 to {}",
                splits.display(),
                labels.len()
            )
        })?;
        pictures.push((format!("image_{id:05}.jpg"), Some(*label as u32 - 1)));
    }
    if pictures.is_empty() {
        return Err(bad_input!("{} has an empty split", splits.display()));
    }
    let root = folder.join("jpg");
    all_there(
        &root,
        pictures.iter().map(|(name, _)| name.as_str()),
        "flowers102",
    )?;
    let listed = Listed {
        kind: "Oxford Flowers-102",
        root,
        pictures,
    };
    let classes = (1..=highest).map(|class| class.to_string()).collect();
    Ok(Some(listed.opened(classes)))
}

/// The numbers of some variables of a file, one after the other.
fn counts(path: &Path, names: &[&str]) -> Result<Vec<usize>> {
    let read = || -> Result<Vec<usize>> {
        let variables: BTreeMap<String, Variable> = mat::read(&read_small(path, mat::MAX_BYTES)?)?;
        let mut all = Vec::new();
        for name in names {
            let found = variables.get(*name);
            let found = found.with_context(|| format!("it has no variable {name}"))?;
            all.extend(
                found
                    .counts()
                    .with_context(|| format!("its variable {name}"))?,
            );
        }
        Ok(all)
    };
    read().map_err(|error| bad_input!("{}: {error:#}", path.display()))
}

//! Oxford-IIIT Pets (Parkhi et al., CVPR 2012): `images/`, and lists of names
//! and classes in `annotations/trainval.txt` and `annotations/test.txt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::listed::{Listed, all_there};
use super::{Opened, half_there, read_small};
use crate::bad_input;
use crate::data::dataset::Part;

const TRAIN: &str = "annotations/trainval.txt";
const TEST: &str = "annotations/test.txt";
/// The published lists have 120 kB.
const MAX_LIST: u64 = 4 << 20;
const MAX_CLASSES: usize = 1000;

/// Its folder at or directly below `path`.
pub fn find(path: &Path) -> Option<PathBuf> {
    let below = ["", "pets", "oxford-iiit-pet"].map(|folder| path.join(folder));
    let has = |folder: &PathBuf| [TRAIN, TEST].iter().any(|name| folder.join(name).is_file());
    below.into_iter().find(has)
}

/// Opens a folder that [`find`] gave.
///
/// # Errors
/// [`bad_input!`] if something is missing or broken.
pub fn open(folder: &Path, part: Part) -> Result<Option<Opened>> {
    let names = [TRAIN, TEST, "images"];
    half_there("Oxford-IIIT Pets", "pets", folder, &names, |name| {
        folder.join(name).exists()
    })?;
    let lists: &[&str] = match part {
        Part::All => &[TRAIN, TEST],
        Part::Train | Part::Unlabelled => &[TRAIN],
        Part::Test => &[TEST],
    };
    // Of one list alone, classes that the other has would be missing.
    let mut classes = BTreeMap::new();
    let mut pictures = Vec::new();
    for list in [TRAIN, TEST] {
        let rows = read_list(&folder.join(list), &mut classes)?;
        if lists.contains(&list) {
            pictures.extend(rows);
        }
    }
    pictures.sort();
    pictures.dedup();
    if pictures.is_empty()
        || classes
            .keys()
            .ne((0..classes.len() as u32).collect::<Vec<_>>().iter())
    {
        return Err(bad_input!(
            "the lists in {} name {} pictures of {} classes; expected some, of classes that are \
             numbered from 1 on without a gap",
            folder.join("annotations").display(),
            pictures.len(),
            classes.len()
        ));
    }
    let root = folder.join("images");
    all_there(
        &root,
        pictures.iter().map(|(name, _)| name.as_str()),
        "pets",
    )?;
    let listed = Listed {
        kind: "Oxford-IIIT Pets",
        root,
        pictures,
    };
    Ok(Some(listed.opened(classes.into_values().collect())))
}

/// Rows of `NAME CLASS SPECIES BREED`, where NAME is the class's and a number.
fn read_list(
    path: &Path,
    classes: &mut BTreeMap<u32, String>,
) -> Result<Vec<(String, Option<u32>)>> {
    let bytes = read_small(path, MAX_LIST)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut pictures = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|name| !name.starts_with('#')) else {
            continue;
        };
        let class = words.next().and_then(|word| word.parse::<usize>().ok());
        let class = class.filter(|class| (1..=MAX_CLASSES).contains(class));
        let known = name
            .rsplit_once('_')
            .filter(|_| !name.contains(['/', '\\']));
        let (Some(class), Some((breed, _))) = (class, known) else {
            return Err(bad_input!(
                "line {} of {} is {line:?}; expected such as \"Abyssinian_100 1 1 1\": a picture's \
                 name and its class from 1 to {MAX_CLASSES}",
                at + 1,
                path.display()
            ));
        };
        let label = class as u32 - 1;
        let of_class = classes.entry(label).or_insert_with(|| breed.to_owned());
        if of_class != breed {
            return Err(bad_input!(
                "line {} of {} has {breed} as class {class}, which was {of_class}",
                at + 1,
                path.display()
            ));
        }
        pictures.push((format!("{name}.jpg"), Some(label)));
    }
    Ok(pictures)
}

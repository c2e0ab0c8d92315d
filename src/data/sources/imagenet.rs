//! ImageNet's original files (ILSVRC 2012): `ILSVRC2012_img_train.tar`, a tar
//! file of one for each class; `ILSVRC2012_img_val.tar` or its pictures in
//! `val/`, whose classes are in the development kit: numbers, in
//! `ILSVRC2012_validation_ground_truth.txt`, and what they mean, in `meta.mat`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::listed::Listed;
use super::shards::{self, Member};
use super::{Opened, archive, read_small, tars};
use crate::bad_input;
use crate::data::dataset::Part;
use crate::data::mat::{self, Variable};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
/// What the pictures of the second are called, before their numbers.
const VAL_PICTURE: &str = "ILSVRC2012_val_";
const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const META: &str = "meta.mat";
const KIT: &str = "ILSVRC2012_devkit_t12.tar.gz";
/// Where the kit's files are, when it is unpacked.
const KIT_FOLDERS: [&str; 3] = ["", "data", "ILSVRC2012_devkit_t12/data"];
/// The published list has 200 kB.
const MAX_TRUTH: u64 = 4 << 20;
/// Classes, of which those without children are used.
const MAX_SYNSETS: usize = 10_000;

/// ImageNet's files in a folder.
pub struct ImageNet {
    folder: PathBuf,
    train: bool,
    val: bool,
    /// Whether one of the two was asked for by its name.
    only: bool,
    /// A folder of validation pictures without class folders.
    val_folder: Option<PathBuf>,
}

/// The folder with one of the tar files, or that of the one at `path`; or one
/// with validation pictures in `val/` and the development kit.
pub fn find(path: &Path) -> Option<ImageNet> {
    let asked = [TRAIN, VAL].map(|name| path.is_file() && path.ends_with(name));
    if asked.contains(&true) {
        return Some(ImageNet {
            folder: path.parent()?.to_owned(),
            train: asked[0],
            val: asked[1],
            only: true,
            val_folder: None,
        });
    }
    let [train, val] = [TRAIN, VAL].map(|name| path.join(name).is_file());
    let first = format!("{VAL_PICTURE}00000001.JPEG");
    let folders = ["val", "ILSVRC2012_img_val"].map(|name| path.join(name));
    let val_folder = folders
        .into_iter()
        .find(|folder| folder.join(&first).is_file());
    let has_kit = path.join(KIT).is_file()
        || KIT_FOLDERS
            .iter()
            .any(|folder| path.join(folder).join(TRUTH).is_file());
    let val_folder = val_folder.filter(|_| has_kit && !val);
    (train || val || val_folder.is_some()).then(|| ImageNet {
        folder: path.to_owned(),
        train,
        val,
        only: false,
        val_folder,
    })
}

impl ImageNet {
    /// Whether the pictures of `part` are looked for among these files, and not
    /// in class folders.
    pub fn has(&self, part: Part) -> bool {
        match part {
            Part::All => self.train || self.val,
            Part::Train | Part::Unlabelled => {
                self.train || self.val && (self.only || !self.folder.join("train").is_dir())
            }
            Part::Test => true,
        }
    }

    /// # Errors
    /// [`bad_input!`] if a file is missing, broken, or names a class that the
    /// development kit does not know.
    pub fn open(&self, part: Part) -> Result<Option<Opened>> {
        let [train_tar, val_tar] = [TRAIN, VAL].map(|name| self.folder.join(name));
        let (train, val) = match part {
            Part::All => (self.train, self.val),
            Part::Train | Part::Unlabelled => (self.train, self.val && self.only),
            // Of validation pictures that were named by themselves there is no
            // other part; of training pictures, it lies beside them.
            Part::Test => (false, val_tar.is_file() && !(self.val && self.only)),
        };
        let mut paths = Vec::new();
        let mut members = Vec::new();
        if train {
            members.extend(train_members(&train_tar)?);
            paths.push(train_tar);
        }
        if val {
            members.extend(self.val_members(&val_tar, paths.len() as u32)?);
            paths.push(val_tar);
        }
        match (paths.is_empty(), part) {
            (false, _) => shards::opened(paths, members).map(Some),
            (true, Part::Test) => self.open_val_folder(),
            (true, _) => Err(bad_input!(
                "{} has ImageNet's validation pictures but none to train on; expected {TRAIN}, or \
                 class folders in train/",
                self.folder.display()
            )),
        }
    }

    fn val_members(&self, path: &Path, shard: u32) -> Result<Vec<(Member, Option<String>)>> {
        let classes = self.validation_classes()?;
        let mut members = Vec::new();
        tars::walk(path, None, |found| {
            let Some(class) = class_of(&found.inside, &classes) else {
                return Ok(());
            };
            let class = class.with_context(|| path.display().to_string())?;
            let name = format!("{VAL}/{}", found.inside);
            members.push((
                Member {
                    name,
                    shard,
                    offset: found.offset,
                    len: found.len,
                },
                Some(class),
            ));
            Ok(())
        })?;
        members.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(members)
    }

    /// Validation pictures that were unpacked.
    fn open_val_folder(&self) -> Result<Option<Opened>> {
        let Some(root) = &self.val_folder else {
            return Ok(None);
        };
        let classes = self.validation_classes()?;
        let mut names: Vec<String> = std::fs::read_dir(root)
            .and_then(|entries| {
                let name = |entry: std::io::Result<std::fs::DirEntry>| {
                    Ok(entry?.file_name().to_string_lossy().into_owned())
                };
                entries.map(name).collect()
            })
            .with_context(|| format!("listing {}", root.display()))?;
        names.sort();
        let (mut pictures, mut of_class) = (Vec::new(), Vec::new());
        for name in names {
            if let Some(class) = class_of(&name, &classes) {
                of_class.push(Some(class?));
                pictures.push(name);
            }
        }
        let (classes, labels) = super::assign_labels(&of_class);
        let listed = Listed {
            kind: "ImageNet validation",
            root: root.clone(),
            pictures: pictures.into_iter().zip(labels).collect(),
        };
        Ok(Some(listed.opened(classes)))
    }

    /// The class of each validation picture, from the development kit.
    fn validation_classes(&self) -> Result<Vec<String>> {
        let folders = KIT_FOLDERS.map(|folder| self.folder.join(folder));
        let kit = self.folder.join(KIT);
        let unpacked = folders.iter().find(|folder| folder.join(TRUTH).is_file());
        let [truth, meta] = match unpacked {
            Some(folder) if folder.join(META).is_file() => [
                read_small(&folder.join(TRUTH), MAX_TRUTH)?,
                read_small(&folder.join(META), mat::MAX_BYTES)?,
            ],
            None if kit.is_file() => {
                let mut members = archive::members(&kit, |name| match name {
                    TRUTH => Some(MAX_TRUTH),
                    META => Some(mat::MAX_BYTES),
                    _ => None,
                })?;
                [TRUTH, META].map(|name| members.remove(name).unwrap_or_default())
            }
            _ => {
                return Err(bad_input!(
                    "{} has ImageNet's validation pictures, whose classes are in its development \
                     kit: put {KIT} beside them, or {TRUTH} and {META} of it; it is on the page \
                     of the pictures at image-net.org",
                    self.folder.display()
                ));
            }
        };
        let read = || -> Result<Vec<String>> {
            let names = class_names(&meta).context(META)?;
            let text = std::str::from_utf8(&truth).context(TRUTH)?;
            let class = |word: &str| {
                let name = word.parse().ok().and_then(|id: usize| names.get(&id));
                name.cloned().with_context(|| {
                    format!("{TRUTH} names the class {word:?}, which {META} has not")
                })
            };
            text.split_whitespace().map(class).collect()
        };
        let found = read().map_err(|error| bad_input!("ImageNet's development kit: {error:#}"))?;
        match found.is_empty() {
            true => Err(bad_input!("ImageNet's {TRUTH} is empty, or not in {KIT}")),
            false => Ok(found),
        }
    }
}

/// A validation picture's class, by the number in its name; `None` for other
/// files.
fn class_of(name: &str, classes: &[String]) -> Option<Result<String>> {
    let name = name.rsplit('/').next()?;
    let number = name.strip_prefix(VAL_PICTURE)?.split('.').next()?;
    let number: usize = number.parse().ok()?;
    let class = number.checked_sub(1).and_then(|at| classes.get(at));
    Some(
        class.cloned().ok_or_else(|| {
            bad_input!("{name} has no line in {TRUTH}, which has {}", classes.len())
        }),
    )
}

/// The pictures of each class's tar file, where they lie in the whole.
fn train_members(path: &Path) -> Result<Vec<(Member, Option<String>)>> {
    let mut parts = BTreeMap::new();
    tars::walk(path, None, |found| {
        if let Some(class) = found.inside.strip_suffix(".tar") {
            parts.insert(class.to_owned(), (found.offset, found.len));
        }
        Ok(())
    })?;
    let mut members = Vec::new();
    for (class, part) in parts {
        let inner = tars::walk(path, Some(part), |found| {
            if super::is_picture_name(Path::new(&found.inside)) {
                let member = Member {
                    name: format!("{TRAIN}/{class}/{}", found.inside),
                    shard: 0,
                    offset: found.offset,
                    len: found.len,
                };
                members.push((member, Some(class.clone())));
            }
            Ok(())
        });
        inner.with_context(|| format!("{class}.tar in {}", path.display()))?;
    }
    Ok(members)
}

/// WordNet's names of the classes by their numbers: those of the structure
/// `synsets` that have no children.
fn class_names(meta: &[u8]) -> Result<BTreeMap<usize, String>> {
    let variables = mat::read(meta)?;
    let Some(Variable::Struct(fields, rows)) = variables.get("synsets") else {
        bail!("it has no structure `synsets`");
    };
    ensure!(rows.len() <= MAX_SYNSETS, "it has {} synsets", rows.len());
    let field = |name: &str| {
        let at = fields.iter().position(|field| field == name);
        at.with_context(|| format!("its synsets have no {name}"))
    };
    let (id, name, children) = (
        field("ILSVRC2012_ID")?,
        field("WNID")?,
        field("num_children")?,
    );
    let mut names = BTreeMap::new();
    for row in rows {
        let [id, children] = [id, children].map(|at| row[at].counts());
        let (&[id], &[children]) = (&id?[..], &children?[..]) else {
            bail!("a synset's number is no number");
        };
        let Variable::Text(name) = &row[name] else {
            bail!("the WNID of synset {id} is no text");
        };
        if children == 0 {
            names.insert(id, name.clone());
        }
    }
    Ok(names)
}

//! A set of pictures, wherever it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use super::decode::Picture;
use super::pool::panic_text;
use super::sources::{
    Opened, Source, cifar, csv, flowers, folder, imagenet, pets, shards, stl, synthetic,
};
use crate::bad_input;

/// Which data, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// A folder or file; or `synthetic`, or `synthetic:K=8,N=4096,px=64`.
    pub path: String,
    /// Turn pictures upright as their EXIF data says.
    pub exif_orientation: bool,
}

impl DataSpec {
    /// The data at `path`, turned upright.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            exif_orientation: true,
        }
    }
}

/// Which pictures of a place are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// With labels, where there are labels.
    Train,
    Test,
    /// What was published without labels, to pre-train on.
    Unlabelled,
}

/// An ordered set of pictures with random access. The order is that of the
/// sorted names, so it is the same on every machine.
pub struct Dataset {
    source: Box<dyn Source>,
    classes: Vec<String>,
    /// Whether any picture has a label.
    has_labels: bool,
    /// From the source's labels to ours, after [`Dataset::align_labels`].
    relabel: Option<Vec<u32>>,
    exif_orientation: bool,
    fingerprint: OnceLock<String>,
}

impl Dataset {
    /// All the pictures at `spec.path`. The kind of place is detected:
    /// `synthetic`; a data set as it was published (docs/data.md); a folder of
    /// pictures, in class folders (a picture's class is its last folder) or
    /// not; a tar file or a folder of them; a CSV list of paths and labels.
    ///
    /// # Errors
    /// [`bad_input!`] if there is nothing there, no picture in it, or
    /// something broken.
    pub fn open(spec: &DataSpec) -> Result<Self> {
        Self::open_part(spec, Part::All)?
            .with_context(|| format!("{} holds no pictures", spec.path))
    }

    /// The pictures to train on: those in `train` or `train.tar` in the
    /// folder, if there is one; CIFAR's training batches; else all.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_train(spec: &DataSpec) -> Result<Self> {
        Self::open_part(spec, Part::Train)?.ok_or_else(|| {
            bad_input!(
                "{} has test pictures but none to train on; expected CIFAR's data_batch_1.bin \
                 to data_batch_5.bin, or train.bin",
                spec.path
            )
        })
    }

    /// The pictures to pre-train on; and, where those were published without
    /// labels, the labelled training pictures that belong to them (STL-10).
    /// Else they are those of [`Dataset::open_train`].
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_pretrain(spec: &DataSpec) -> Result<(Self, Option<Self>)> {
        let train = Self::open_train(spec)?;
        Ok(match Self::open_part(spec, Part::Unlabelled)? {
            Some(unlabelled) => (unlabelled, Some(train)),
            None => (train, None),
        })
    }

    /// The held-out pictures that belong to [`Dataset::open_train`]'s:
    /// `test`, `test.tar`, `val` or `val.tar` (the first that exists) beside
    /// `train`; CIFAR's test batch; other pictures of the synthetic set. None
    /// if there are none. Labels are those of `train`'s classes.
    ///
    /// # Errors
    /// As [`Dataset::open`] and [`Dataset::align_labels`].
    pub fn open_test(spec: &DataSpec, train: &Dataset) -> Result<Option<Self>> {
        let Some(mut test) = Self::open_part(spec, Part::Test)? else {
            return Ok(None);
        };
        test.align_labels(train.classes())?;
        Ok(Some(test))
    }

    fn open_part(spec: &DataSpec, part: Part) -> Result<Option<Self>> {
        let Some(opened) = open_place(&spec.path, part)? else {
            return Ok(None);
        };
        let data = Self::from_source(opened, spec.exif_orientation);
        if u32::try_from(data.len()).is_err() {
            return Err(bad_input!(
                "{} has {} pictures; at most {} are supported",
                spec.path,
                data.len(),
                u32::MAX
            ));
        }
        tracing::debug!(
            "{}: {} pictures, {} classes ({})",
            spec.path,
            data.len(),
            data.classes.len(),
            data.source.kind()
        );
        Ok(Some(data))
    }

    pub(super) fn from_source(opened: Opened, exif_orientation: bool) -> Self {
        Self {
            source: opened.source,
            has_labels: !opened.classes.is_empty(),
            classes: opened.classes,
            relabel: None,
            exif_orientation,
            fingerprint: OnceLock::new(),
        }
    }

    /// How many pictures there are: at least 1, and their ids fit u32.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Never true of a set that was opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of place, in a few words.
    pub fn kind(&self) -> String {
        self.source.kind()
    }

    /// Class names by label; empty where nothing is labelled.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Whether labels can tell anything: there are at least two classes.
    pub fn is_labelled(&self) -> bool {
        self.has_labels && self.classes.len() >= 2
    }

    /// A picture's class, if it has one.
    ///
    /// # Panics
    /// If `index` is not below `len`; so do `name` and `decode`.
    pub fn label(&self, index: usize) -> Option<u32> {
        let label = self.source.label(index)?;
        Some(match &self.relabel {
            Some(relabel) => relabel[label as usize],
            None => label,
        })
    }

    /// A picture's name, unique in the set: its path below the root.
    pub fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    /// Reads and decodes a picture.
    ///
    /// # Errors
    /// If it cannot be read or decoded; the message names it.
    pub fn decode(&self, index: usize) -> Result<Picture> {
        self.decode_unnamed(index).with_context(|| self.name(index))
    }

    /// As [`Dataset::decode`], for those who name the picture themselves. A
    /// panic in a decoder's code is an error too: one odd file must not end
    /// a run.
    pub(super) fn decode_unnamed(&self, index: usize) -> Result<Picture> {
        catch_unwind(AssertUnwindSafe(|| {
            self.source.decode(index, self.exif_orientation)
        }))
        .unwrap_or_else(|payload| Err(anyhow!("the decoder panicked: {}", panic_text(&*payload))))
    }

    /// Bytes that a picture takes where it is stored.
    pub(super) fn size(&self, index: usize) -> Result<u64> {
        self.source.size(index)
    }

    /// Numbers the labels by `classes` (those of the training set), so that
    /// both sets mean the same class by the same label.
    ///
    /// # Errors
    /// [`bad_input!`] if a class is not among them.
    pub fn align_labels(&mut self, classes: &[String]) -> Result<()> {
        let position = |name: &String| {
            let at = classes.iter().position(|known| known == name);
            at.map(|at| at as u32).ok_or_else(|| {
                bad_input!(
                    "class {name:?} of the test pictures is not among the {} classes of the \
                     training pictures",
                    classes.len()
                )
            })
        };
        let ours: Vec<u32> = self.classes.iter().map(position).collect::<Result<_>>()?;
        self.relabel = Some(match &self.relabel {
            None => ours,
            Some(earlier) => earlier.iter().map(|&label| ours[label as usize]).collect(),
        });
        self.classes = classes.to_vec();
        Ok(())
    }

    /// SHA-256 in hexadecimal of the kind, the class names, and the sorted
    /// names and sizes of the pictures; equal for equal data wherever it
    /// lies. Computed once.
    ///
    /// # Errors
    /// If a file's size cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let mut hash = Sha256::new();
        hash.update(format!("{}\n{:?}\n", self.kind(), self.classes));
        for index in 0..self.len() {
            hash.update(format!("{:?} {}\n", self.name(index), self.size(index)?));
        }
        let text = crate::hash::hex(&hash.finalize());
        Ok(self.fingerprint.get_or_init(|| text).clone())
    }
}

fn open_place(path: &str, part: Part) -> Result<Option<Opened>> {
    if let Some(spec) = synthetic::Spec::parse(path)? {
        return Ok((part != Part::Unlabelled).then(|| synthetic::open(spec, part)));
    }
    let root = Path::new(path);
    if !root.exists() {
        return Err(bad_input!(
            "no such folder or file: {path}; expected a folder of pictures, a .tar or .csv file, \
             a data set as it was published (see `xla-moco data get --help`), or synthetic"
        ));
    }
    if let Some(stl) = stl::find(root) {
        return stl.open(part);
    }
    if part == Part::Unlabelled {
        return Ok(None);
    }
    if let Some(folder) = flowers::find(root) {
        return flowers::open(&folder, part);
    }
    if let Some(folder) = pets::find(root) {
        return pets::open(&folder, part);
    }
    if let Some(imagenet) = imagenet::find(root).filter(|found| found.has(part)) {
        return imagenet.open(part);
    }
    if let Some(cifar) = cifar::find(root)? {
        return cifar.open(part);
    }
    let split = match part {
        Part::All => None,
        Part::Train | Part::Unlabelled => find_split(root, &["train"]).filter(|_| root.is_dir()),
        Part::Test => match find_test(root) {
            None => return Ok(None),
            found => found,
        },
    };
    open_path(split.as_deref().unwrap_or(root)).map(Some)
}

fn open_path(path: &Path) -> Result<Opened> {
    let extension = path.extension().unwrap_or_default();
    if path.is_file() && extension == "bin" {
        return cifar::open_file(path);
    }
    if path.is_file() && extension == "csv" {
        return csv::open(path);
    }
    if path.is_file() {
        return shards::open(&[path.to_owned()]);
    }
    let found = folder::walk(path)?;
    if found.pictures.is_empty() && !found.tars.is_empty() {
        return shards::open(&found.tars);
    }
    if !found.tars.is_empty() {
        tracing::warn!(
            "{} has pictures and {} tar files; the tar files are left out",
            path.display(),
            found.tars.len()
        );
    }
    folder::open(path, found)
}

/// `folder/NAME`, `folder/NAME.tar` or `folder/NAME.csv`, the first that exists.
fn find_split(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let candidates = names
        .iter()
        .flat_map(|name| ["", ".tar", ".csv"].map(|end| folder.join(format!("{name}{end}"))));
    candidates.into_iter().find(|path| path.exists())
}

fn find_test(root: &Path) -> Option<PathBuf> {
    let names = ["test", "val"];
    if root.is_dir() && find_split(root, &["train"]).is_some() {
        return find_split(root, &names);
    }
    // The path is itself the training part: look beside it.
    let is_train = root.file_stem().is_some_and(|stem| stem == "train");
    find_split(root.parent().filter(|_| is_train)?, &names)
}

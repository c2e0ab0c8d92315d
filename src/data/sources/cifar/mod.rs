//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32 x 32 pixels, plane after plane:
//! the binary version, records of one label byte (CIFAR-100: coarse, then
//! fine) and the pixels; and the python version, pickled dictionaries of an
//! array of pixels and a list of labels. Unpacked, or the archives themselves.

mod pickled;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::records::{self, Bytes, Form, RecordFile};
use super::{Opened, archive, file_name, half_there, names_or_numbers, read_small};
use crate::bad_input;
use crate::data::dataset::Part;
use crate::pickle::MAX_ARRAYS_BYTES;

const FORM: Form = Form {
    px: 32,
    columns_first: false,
};
/// The largest of its files, CIFAR-100's training pictures, has 155 MB.
const MAX_FILE: u64 = MAX_ARRAYS_BYTES as u64;

/// CIFAR-10 or CIFAR-100, of one version.
#[derive(Clone, Copy, PartialEq)]
struct Version {
    name: &'static str,
    classes: u8,
    python: bool,
    /// For `xla-moco data get`.
    get: &'static str,
    archive: &'static str,
    /// The folder in it.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// The published list of class names.
    names: &'static str,
}

const BINARY_10: Version = Version {
    name: "CIFAR-10",
    classes: 10,
    python: false,
    get: "cifar10",
    archive: "cifar-10-binary.tar.gz",
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    names: "batches.meta.txt",
};

const PYTHON_10: Version = Version {
    python: true,
    archive: "cifar-10-python.tar.gz",
    folder: "cifar-10-batches-py",
    train: &[
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
    ],
    test: "test_batch",
    names: "batches.meta",
    ..BINARY_10
};

const BINARY_100: Version = Version {
    name: "CIFAR-100",
    classes: 100,
    python: false,
    get: "cifar100",
    archive: "cifar-100-binary.tar.gz",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    names: "fine_label_names.txt",
};

const PYTHON_100: Version = Version {
    python: true,
    archive: "cifar-100-python.tar.gz",
    folder: "cifar-100-python",
    train: &["train"],
    test: "test",
    names: "meta",
    ..BINARY_100
};

const VERSIONS: [Version; 4] = [BINARY_10, BINARY_100, PYTHON_10, PYTHON_100];

impl Version {
    /// Bytes before the pixels of a binary record; the last is the label (of
    /// CIFAR-100, the fine one).
    fn label_bytes(self) -> u64 {
        if self.classes == 100 { 2 } else { 1 }
    }

    fn record_bytes(self) -> u64 {
        self.label_bytes() + FORM.bytes()
    }

    fn files(self, part: Part) -> Vec<&'static str> {
        match part {
            Part::All => [self.train, &[self.test]].concat(),
            Part::Train | Part::Unlabelled => self.train.to_vec(),
            Part::Test => vec![self.test],
        }
    }

    /// Whether a folder has one of its files. Those of the python version have
    /// names that other files have too: they begin as a pickle does.
    fn is_in(self, folder: &Path) -> bool {
        self.files(Part::All).iter().any(|name| {
            let path = folder.join(name);
            path.is_file() && (!self.python || begins(&path, &[0x80]))
        })
    }

    fn label(self, file: &str, at: usize, label: i64) -> Result<Option<u32>> {
        if !(0..i64::from(self.classes)).contains(&label) {
            return Err(bad_input!(
                "record {at} of {file} has label {label}: {} has {} classes; the file is broken",
                self.name,
                self.classes
            ));
        }
        Ok(Some(label as u32))
    }
}

/// CIFAR at a place.
pub struct Cifar {
    version: Version,
    place: PathBuf,
    is_archive: bool,
}

/// The files at or directly below `path`, or an archive of them.
///
/// # Errors
/// [`bad_input!`] for an archive of something else.
pub fn find(path: &Path) -> Result<Option<Cifar>> {
    if path.is_file() {
        return match begins(path, &[0x1F, 0x8B]) {
            true => in_archive(path).map(Some),
            false => Ok(None),
        };
    }
    for version in VERSIONS {
        for folder in [path.to_owned(), path.join(version.folder)] {
            if version.is_in(&folder) {
                return Ok(Some(Cifar {
                    version,
                    place: folder,
                    is_archive: false,
                }));
            }
        }
    }
    let archives = VERSIONS.into_iter().map(|version| Cifar {
        version,
        place: path.join(version.archive),
        is_archive: true,
    });
    Ok(archives.into_iter().find(|cifar| cifar.place.is_file()))
}

/// The version is told by the archive's first folder.
fn in_archive(path: &Path) -> Result<Cifar> {
    let first = archive::first_name(path)?;
    let version = VERSIONS
        .into_iter()
        .find(|version| first.trim_start_matches("./").split('/').next() == Some(version.folder));
    let version = version.ok_or_else(|| {
        bad_input!(
            "{} is compressed with gzip, so pictures cannot be read in place: unpack it \
             (`tar xzf`); only CIFAR's archives are read as they are",
            path.display()
        )
    })?;
    Ok(Cifar {
        version,
        place: path.to_owned(),
        is_archive: true,
    })
}

fn begins(path: &Path, magic: &[u8]) -> bool {
    let mut start = vec![0; magic.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == magic
}

impl Cifar {
    /// `None` if there are no test pictures.
    ///
    /// # Errors
    /// [`bad_input!`] if a file is missing, has another length than whole
    /// records, or a label out of range.
    pub fn open(&self, part: Part) -> Result<Option<Opened>> {
        let version = self.version;
        let mut wanted = version.files(part);
        let mut in_memory = match self.is_archive {
            true => archive::members(&self.place, |name| {
                let known = wanted.contains(&name) || name == version.names;
                known.then_some(MAX_FILE)
            })?,
            false => BTreeMap::new(),
        };
        let is_there = |name: &str| match self.is_archive {
            true => in_memory.contains_key(name),
            false => self.place.join(name).is_file(),
        };
        if !is_there(version.test) {
            wanted.retain(|name| *name != version.test);
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        half_there(version.name, version.get, &self.place, &wanted, is_there)?;
        let classes = self.class_names(in_memory.get(version.names))?;
        let mut files = Vec::new();
        for name in wanted {
            let bytes = match in_memory.remove(name) {
                Some(bytes) => Bytes::Memory(bytes),
                None => Bytes::File(self.place.join(name)),
            };
            files.push(file(version, name, bytes)?);
        }
        Ok(Some(records::open(version.name, FORM, files, classes)))
    }

    /// The published names, else the labels' numbers.
    fn class_names(&self, bytes: Option<&Vec<u8>>) -> Result<Vec<String>> {
        let Version { names, classes, .. } = self.version;
        let path = self.place.join(names);
        let bytes = match bytes {
            Some(bytes) => bytes.clone(),
            None if path.is_file() => read_small(&path, 1 << 20)?,
            None => Vec::new(),
        };
        if !self.version.python {
            return Ok(names_or_numbers(&bytes, classes.into(), 0));
        }
        let found = match bytes.is_empty() {
            true => vec![],
            false => pickled::names(&bytes)
                .map_err(|error| bad_input!("{names} of {}: {error:#}", self.place.display()))?,
        };
        let words = found.join("\n");
        Ok(names_or_numbers(words.as_bytes(), classes.into(), 0))
    }
}

/// A binary file by itself, of the version that its name tells, else its
/// length.
///
/// # Errors
/// As [`Cifar::open`].
pub fn open_file(path: &Path) -> Result<Opened> {
    let version = detect(path)?;
    let cifar = Cifar {
        version,
        place: path.parent().unwrap_or(Path::new("")).to_owned(),
        is_archive: false,
    };
    let classes = cifar.class_names(None)?;
    let file = file(version, &file_name(path), Bytes::File(path.to_owned()))?;
    Ok(records::open(version.name, FORM, vec![file], classes))
}

fn detect(path: &Path) -> Result<Version> {
    let name = file_name(path);
    if name.contains("batch") {
        return Ok(BINARY_10);
    }
    if name == "train.bin" || name == "test.bin" {
        return Ok(BINARY_100);
    }
    let len = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    [BINARY_10, BINARY_100]
        .into_iter()
        .find(|version| len > 0 && len.is_multiple_of(version.record_bytes()))
        .ok_or_else(|| {
            bad_input!(
                "{} has {len} bytes: expected a CIFAR file of whole records, of {} bytes \
                 (CIFAR-10) or {} (CIFAR-100)",
                path.display(),
                BINARY_10.record_bytes(),
                BINARY_100.record_bytes()
            )
        })
}

fn file(version: Version, name: &str, bytes: Bytes) -> Result<RecordFile> {
    let content;
    let (all, shown) = match &bytes {
        Bytes::File(path) => {
            content = read_small(path, MAX_FILE)?;
            (&content, path.display().to_string())
        }
        Bytes::Memory(bytes) => (bytes, name.to_owned()),
    };
    let (first, stride, labels) = match version.python {
        true => pickled::records(all)
            .map_err(|error| bad_input!("{shown}: {error:#}"))
            .and_then(|(first, labels)| {
                let labels = labels.into_iter().enumerate();
                let labels = labels.map(|(at, label)| version.label(&shown, at, label));
                Ok((first, FORM.bytes(), labels.collect::<Result<_>>()?))
            })?,
        false => {
            let labels = binary_labels(version, all, &shown)?;
            (version.label_bytes(), version.record_bytes(), labels)
        }
    };
    Ok(RecordFile {
        name: name.to_owned(),
        bytes,
        first,
        stride,
        labels,
    })
}

fn binary_labels(version: Version, bytes: &[u8], shown: &str) -> Result<Vec<Option<u32>>> {
    let record = version.record_bytes() as usize;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(bad_input!(
            "{shown} has {} bytes: expected whole records of {record} ({}); it is cut short, \
             or not the binary version",
            bytes.len(),
            version.name
        ));
    }
    let label = |(at, record): (usize, &[u8])| {
        let label = record[version.label_bytes() as usize - 1];
        version.label(shown, at, label.into())
    };
    bytes.chunks_exact(record).enumerate().map(label).collect()
}

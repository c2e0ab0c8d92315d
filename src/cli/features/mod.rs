//! `xla-moco features`.

#[cfg(feature = "parquet")]
mod parquet;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::evaluation::{self, Subject, lines, set_lines};
use super::{PjrtArgs, print};
use crate::bad_input;
use crate::checkpoint::{Dtype, HostTensor, atomic};
use crate::config::{Override, RunConfig};
use crate::convert::safetensors_file;
use crate::data::Dataset;
use crate::eval::extract::{Extractor, Pictures};
use crate::pjrt::Buffer;
use crate::programs::features::Form;
use crate::train::{self, Places};

/// Write the features of pictures to a file, in the order of the pictures
///
/// Class-token features of the base encoder in evaluation form, without
/// augmentation, as the final norm leaves them: one row for each picture that
/// can be decoded, labelled or not, with its name and label. The protocol and
/// the checkpoint's hash go into the file.
///
/// FILE.safetensors has f32 `features`, i32 `labels` (-1: none) and `names`, a
/// JSON list as bytes. FILE.npy has the features; FILE.csv beside it names and
/// labels, and FILE.json the protocol. FILE.parquet has a row for each picture:
/// name, label, class and the list of its features.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco features --checkpoint runs/quickstart --data pictures --out pictures.safetensors
  xla-moco features --checkpoint runs/quickstart --data data/pets --split test --out pets.npy")]
pub struct Args {
    /// A run folder (its newest checkpoint) or one checkpoint
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub checkpoint: PathBuf,

    /// Pictures; by default those of the run
    #[arg(long, value_name = "D")]
    pub data: Option<String>,

    /// Which of them
    #[arg(long, value_enum, default_value_t = Split::All)]
    pub split: Split,

    /// File to write: .safetensors, .npy or .parquet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Set one key of the run's configuration, such as data.workers=4
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<Override>,

    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Split {
    All,
    Train,
    Test,
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Safetensors,
    Npy,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            #[cfg(feature = "parquet")]
            Some("parquet") => Ok(Self::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => Err(bad_input!(
                "--out {}: this program was built without Parquet; build it with `--features \
                 parquet` (or `full`), or take .safetensors or .npy",
                path.display()
            )),
            _ => Err(bad_input!(
                "--out {} tells no format; expected a name that ends in .safetensors, .npy or \
                 .parquet",
                path.display()
            )),
        }
    }
}

/// Features and what they are of.
struct Table {
    dim: usize,
    /// Rows of `dim` f32, little-endian.
    features: Vec<u8>,
    /// -1 for none.
    labels: Vec<i32>,
    names: Vec<String>,
}

/// # Errors
/// [`bad_input!`] for a checkpoint, a configuration, data or a file name that
/// cannot be used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let format = Format::of(&args.out)?;
    let subject = Subject::of(&args.checkpoint, &args.set, |config| open(config, &args))?;
    let (data, place) = &subject.data;
    let (client, cache) = evaluation::client(&args.pjrt, &subject.config.gpu)?;
    let extractor = Extractor::new(&client, &subject.config, Form::Plain, cache.as_ref())?;
    let variables = subject.upload(&client, extractor.variables())?;
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let pictures = Pictures::new(data, None, subject.config.data.worker_count(), false);
    let mut table = Table {
        dim: subject.config.model.features(),
        features: Vec::new(),
        labels: Vec::new(),
        names: Vec::new(),
    };
    extractor.each(&backbone, &pictures, |row, id, label| {
        table.features.extend(row);
        table.labels.push(label);
        table.names.push(data.name(id as usize));
    })?;
    let report = json!({
        "features": format!("f32 [{}, {}], as the final norm leaves them", table.names.len(), table.dim),
        "layer": subject.layer(),
        "mode": "evaluation, no augmentation",
        "crop": subject.crop(),
        "set": subject.told(),
        "data": evaluation::set(place, data, table.names.len())?,
        "checkpoint": subject.checkpoint(),
    });
    match format {
        Format::Safetensors => write_safetensors(&args.out, table, data.classes(), &report)?,
        Format::Npy => write_npy(&args.out, &table, data.classes(), &report)?,
        #[cfg(feature = "parquet")]
        Format::Parquet => write_parquet(&args.out, &table, data.classes(), &report)?,
    }
    match args.json {
        true => print(&format!("{report}\n")),
        false => print(&text(&args.out, &report)?),
    }
}

fn open(config: &RunConfig, args: &Args) -> Result<(Arc<Dataset>, String)> {
    let places = match &args.data {
        Some(path) => Places {
            train: train::at(&config.data, path),
            beside: train::at(&config.data, path),
        },
        None => Places::of(&config.data),
    };
    let place = places.train.path.clone();
    let (data, place) = match args.split {
        Split::All => (Dataset::open(&places.train)?, place),
        Split::Train => (
            Dataset::open_train(&places.train)?,
            format!("training split of {place}"),
        ),
        Split::Test => {
            let train = Dataset::open_train(&places.train)?;
            let test = Dataset::open_test(&places.beside, &train)?;
            let test = test.ok_or_else(|| bad_input!("no test split belongs to {place}"))?;
            (test, format!("test split of {}", places.beside.path))
        }
    };
    Ok((Arc::new(data), place))
}

fn write_safetensors(path: &Path, table: Table, classes: &[String], report: &Json) -> Result<()> {
    let names = serde_json::to_vec(&table.names)?;
    let labels = table.labels.iter().flat_map(|label| label.to_le_bytes());
    let rows = table.labels.len();
    let tensor = |name: &str, dtype, shape, data| HostTensor {
        name: name.to_owned(),
        dtype,
        shape,
        data,
    };
    let tensors = [
        tensor(
            "features",
            Dtype::F32,
            vec![rows, table.dim],
            table.features,
        ),
        tensor("labels", Dtype::I32, vec![rows], labels.collect()),
        tensor("names", Dtype::U8, vec![names.len()], names),
    ];
    safetensors_file::write(path, &tensors, &notes(classes, report))
}

/// What a file says of itself.
fn notes(classes: &[String], report: &Json) -> [(&'static str, String); 2] {
    [
        ("protocol", report.to_string()),
        ("classes", json!(classes).to_string()),
    ]
}

#[cfg(feature = "parquet")]
fn write_parquet(path: &Path, table: &Table, classes: &[String], report: &Json) -> Result<()> {
    let notes = notes(classes, report);
    atomic::replace(path, |file| {
        parquet::write(file, table, classes, &notes).map_err(std::io::Error::other)
    })
}

/// The format's version 1.0 (numpy.lib.format), and what it has no place for.
fn write_npy(path: &Path, table: &Table, classes: &[String], report: &Json) -> Result<()> {
    let [csv, json] = ["csv", "json"].map(|end| path.with_extension(end));
    let mut list = String::from("path,label\n");
    for (name, label) in table.names.iter().zip(&table.labels) {
        let class = usize::try_from(*label).ok().and_then(|at| classes.get(at));
        let class = class.map_or("", String::as_str);
        list += &format!("{},{}\n", quoted(name), quoted(class));
    }
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}",
        table.names.len(),
        table.dim
    );
    // So that the numbers begin at a multiple of 64 bytes.
    let begins = (10 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', begins - 10 - header.len() - 1));
    header.push('\n');
    let length = u16::try_from(header.len()).context("the header is too long")?;
    atomic::write_file(&csv, list.as_bytes())?;
    atomic::write_file(&json, format!("{report:#}\n").as_bytes())?;
    // The last one: where it is, the others are.
    atomic::replace(path, |file| {
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        file.write_all(&table.features)
    })
}

/// A field as RFC 4180 writes it.
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

fn text(out: &Path, report: &Json) -> Result<String> {
    let protocol = [
        ("features", "/features"),
        ("layer", "/layer"),
        ("mode", "/mode"),
        ("crop", "/crop"),
        ("checkpoint", "/checkpoint/path"),
        ("step", "/checkpoint/step"),
        ("SHA-256", "/checkpoint/sha256"),
    ];
    Ok(format!(
        "wrote {}\n\n{}{}",
        out.display(),
        lines(report, &protocol)?,
        set_lines(report, &["data"])?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        for (name, fits) in [
            ("a.npy", true),
            ("b.safetensors", true),
            ("a.parquet", cfg!(feature = "parquet")),
            ("a.csv", false),
        ] {
            assert_eq!(Format::of(Path::new(name)).is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(quoted("a b"), "a b");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}

//! What evaluations of a checkpoint share: which checkpoint, which pictures,
//! and what is said of them with every number.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use super::{PjrtArgs, print};
use crate::bad_input;
use crate::checkpoint::{self, Dtype, Loaded, Snapshot};
use crate::config::{Gpu, Override, RunConfig};
use crate::convert::config_of;
use crate::data::Dataset;
use crate::eval::vote::{ClassResult, Confusion};
use crate::graph::Shape;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::train::{self, Places};

/// Confusions that the text shows.
const CONFUSIONS: usize = 5;

#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// A run folder (its newest checkpoint) or one checkpoint
    #[arg(long, value_name = "RUN|CHECKPOINT")]
    pub checkpoint: PathBuf,

    /// Labelled training pictures; by default those of the run
    ///
    /// Given several times, each set is evaluated by itself.
    #[arg(long, value_name = "TRAIN")]
    pub data: Vec<String>,

    /// Labelled test pictures; by default the test split that belongs to the
    /// training pictures
    ///
    /// Of several --data, one for each in the same order, or none at all.
    #[arg(long, value_name = "TEST")]
    pub test: Vec<String>,

    /// Set one key of the run's configuration, such as data.workers=4
    #[arg(long, value_name = "KEY=JSON")]
    pub set: Vec<Override>,

    /// Print one JSON object (top1 in percent) and nothing else; of several sets
    /// it has a list, `sets`
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

/// A checkpoint, the configuration of its run, and the pictures.
pub(super) struct Subject<D = Vec<Sets>> {
    pub loaded: Loaded,
    pub config: RunConfig,
    pub data: D,
    set: Vec<Override>,
}

impl Subject {
    /// # Errors
    /// [`bad_input!`] for a checkpoint, a configuration or data that cannot be
    /// used.
    pub fn open(args: &EvalArgs) -> Result<Self> {
        let sets = args.sets()?;
        Self::of(&args.checkpoint, &args.set, |config| {
            let one = |(data, test): &(_, _)| open(config, *data, *test, Labels::Needed);
            sets.iter().map(one).collect()
        })
    }
}

impl EvalArgs {
    /// Training and test pictures of each set, where they are given.
    fn sets(&self) -> Result<Vec<(Option<&String>, Option<&String>)>> {
        let (data, test) = (self.data.len(), self.test.len());
        if data <= 1 && test <= 1 {
            return Ok(vec![(self.data.first(), self.test.first())]);
        }
        if test != 0 && test != data {
            return Err(bad_input!(
                "{data} --data and {test} --test: expected one --test for each --data in the same \
                 order, or none at all"
            ));
        }
        let data = self.data.iter().enumerate();
        Ok(data
            .map(|(at, path)| (Some(path), self.test.get(at)))
            .collect())
    }
}

impl<D> Subject<D> {
    /// With pictures that the run's configuration, so changed, leads to.
    ///
    /// # Errors
    /// As [`Subject::open`].
    pub fn of(
        checkpoint: &Path,
        set: &[Override],
        open: impl FnOnce(&RunConfig) -> Result<D>,
    ) -> Result<Self> {
        let loaded = checkpoint::open(checkpoint)?;
        let config = config_of(&loaded.path, set)?;
        Ok(Self {
            data: open(&config)?,
            loaded,
            config,
            set: set.to_vec(),
        })
    }

    /// The checkpoint's variables on the first device.
    ///
    /// # Errors
    /// [`bad_input!`] if one is missing or has another shape.
    pub fn upload(
        &self,
        client: &Client,
        variables: &[(String, Shape)],
    ) -> Result<Vec<(String, Buffer)>> {
        upload(client, &self.loaded.snapshot, variables)
            .with_context(|| format!("the checkpoint {}", self.loaded.path.display()))
    }

    /// Makes the backbone's final norm one without gain and bias.
    ///
    /// # Errors
    /// [`bad_input!`] for a backbone that has none.
    pub fn reset_norm(&mut self) -> Result<()> {
        let mut tensors = self.loaded.snapshot.tensors().to_vec();
        let mut found = 0;
        for (name, value) in [("weight", 1.0f32), ("bias", 0.0)] {
            let name = format!("base_encoder.norm.{name}");
            for tensor in tensors.iter_mut().filter(|tensor| tensor.name == name) {
                let count = tensor.data.len() / 4;
                tensor.data = value.to_le_bytes().repeat(count);
                found += 1;
            }
        }
        if found != 2 {
            return Err(bad_input!(
                "--reset-norm: the features are {}, with no final norm before them",
                self.config.model.features_are()
            ));
        }
        self.loaded.snapshot = Snapshot::new(self.loaded.snapshot.step(), tensors)?;
        Ok(())
    }

    /// What features a number is of.
    pub fn layer(&self) -> String {
        format!("{}, base encoder", self.config.model.features_are())
    }

    /// How pictures that are not augmented are cut.
    pub fn crop(&self) -> String {
        let px = self.config.model.image_size;
        format!(
            "shorter side to {}, central {px} x {px}; pictures of {px} x {px} as they are",
            px * 256 / 224
        )
    }

    pub fn checkpoint(&self) -> Json {
        json!({
            "path": self.loaded.path,
            "step": self.loaded.manifest.step,
            "sha256": self.loaded.manifest.state_sha256,
        })
    }

    /// What the configuration was told on the command line.
    pub fn told(&self) -> Vec<String> {
        self.set.iter().map(Override::to_string).collect()
    }
}

/// The plugin's client, and where compiled programs are kept.
pub(super) fn client(args: &PjrtArgs, gpu: &Gpu) -> Result<(Arc<Client>, Option<CompileCache>)> {
    let client = train::client(&args.pjrt, gpu)?;
    let cache = match args.no_compile_cache {
        true => None,
        false => Some(CompileCache::of_user()?),
    };
    Ok((client, cache))
}

/// The reports of all sets: the words for people as each set ends, JSON when all
/// have.
pub(super) struct Reports {
    json: bool,
    all: Vec<Json>,
}

impl Reports {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            all: Vec::new(),
        }
    }

    pub fn add(&mut self, report: Json, text: &str) -> Result<()> {
        if !self.json {
            let gap = if self.all.is_empty() { "" } else { "\n\n" };
            print(&format!("{gap}{text}"))?;
        }
        self.all.push(report);
        Ok(())
    }

    pub fn end(mut self) -> Result<()> {
        match (self.json, self.all.len()) {
            (false, _) => Ok(()),
            (true, 1) => print(&format!("{}\n", self.all.remove(0))),
            (true, _) => print(&format!("{}\n", json!({ "sets": self.all }))),
        }
    }
}

/// A set of pictures, so many of which were used.
pub(super) fn set(name: &str, data: &Dataset, used: usize) -> Result<Json> {
    Ok(json!({
        "path": name,
        "pictures": used,
        "fingerprint": data.fingerprint()?,
    }))
}

/// Lines of a report for people: words, and where in the JSON their values
/// stand.
pub(super) fn lines(report: &Json, what: &[(&str, &str)]) -> Result<String> {
    let mut text = String::new();
    for (what, pointer) in what {
        writeln!(text, "{what:<12}{}", word(report, pointer))?;
    }
    Ok(text)
}

/// A line for each set of pictures, by its key in the JSON.
pub(super) fn set_lines(report: &Json, keys: &[&str]) -> Result<String> {
    let mut text = String::new();
    for what in keys {
        let [path, pictures, fingerprint] =
            ["path", "pictures", "fingerprint"].map(|key| word(report, &format!("/{what}/{key}")));
        writeln!(text, "{what:<12}{pictures} of {path} ({fingerprint:.12})")?;
    }
    Ok(text)
}

fn word(report: &Json, pointer: &str) -> String {
    match report.pointer(pointer) {
        Some(Json::String(word)) => word.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// The classes one by one, and which were confused.
pub(super) fn by_class(per_class: &[ClassResult], confusions: &[Confusion]) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "\nby class")?;
    let names = per_class.iter().map(|c| c.name.chars().count());
    let width = names.max().unwrap_or(0);
    for class in per_class {
        let top1 = class.top1.map_or("-".into(), |x| format!("{x:.2}%"));
        let (name, right, queries) = (&class.name, class.right, class.queries);
        writeln!(text, "  {name:<width$} {top1:>8}  {right} of {queries}")?;
    }
    if !confusions.is_empty() {
        writeln!(text, "\nmost often confused")?;
    }
    for pair in confusions.iter().take(CONFUSIONS) {
        let (actual, predicted) = (&pair.actual, &pair.predicted);
        writeln!(
            text,
            "  {:>6}  {actual} taken for {predicted}",
            pair.queries
        )?;
    }
    Ok(text)
}

/// Training and test pictures, and what they are called.
pub(super) struct Sets {
    pub train: Arc<Dataset>,
    pub train_name: String,
    pub test: Arc<Dataset>,
    pub test_name: String,
}

/// Whether pictures without labels will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    Needed,
    Optional,
}

/// Opens the pictures. With --data and --test each is all that is
/// there; what is not given belongs to the other, or to the run.
///
/// # Errors
/// [`bad_input!`] for pictures that cannot be used.
pub(super) fn open(
    config: &RunConfig,
    data: Option<&String>,
    test: Option<&String>,
    labels: Labels,
) -> Result<Sets> {
    let at = |path: &str| train::at(&config.data, path);
    let Places {
        train: train_at,
        beside,
    } = match data.or(config.data.labelled.as_ref()) {
        Some(path) => Places {
            train: at(path),
            beside: at(path),
        },
        None => Places::of(&config.data),
    };
    let train = match (data, test) {
        (Some(_), Some(_)) => Dataset::open(&train_at)?,
        _ => Dataset::open_train(&train_at)?,
    };
    if !train.is_labelled() && labels == Labels::Needed {
        return Err(bad_input!(
            "{} has no labels, and only labelled pictures can tell classes: give --data a folder \
             of class folders, labelled tar files or CIFAR's files, and --test the like",
            train_at.path
        ));
    }
    let of_run = config.data.test.as_ref().filter(|_| data.is_none());
    let (test, test_name) = match test.or(of_run) {
        Some(path) => {
            let mut test = Dataset::open(&at(path))?;
            if train.is_labelled() {
                test.align_labels(train.classes())
                    .with_context(|| format!("{path} against {}", train_at.path))?;
            }
            (test, path.clone())
        }
        None => {
            let test = Dataset::open_test(&beside, &train)?.ok_or_else(|| {
                bad_input!("no test split belongs to {}: give --test", train_at.path)
            })?;
            (test, format!("test split of {}", beside.path))
        }
    };
    Ok(Sets {
        train: Arc::new(train),
        train_name: train_at.path,
        test: Arc::new(test),
        test_name,
    })
}

/// The variables of the backbone on the first device.
fn upload(
    client: &Client,
    state: &Snapshot,
    variables: &[(String, Shape)],
) -> Result<Vec<(String, Buffer)>> {
    let device = &client.devices()[0];
    let put = |(name, shape): &(String, Shape)| {
        let found = state
            .get(name)
            .ok_or_else(|| bad_input!("it has no tensor {name}, which the run's model needs"))?;
        if found.dtype != Dtype::F32 || found.shape != shape.dims() {
            return Err(bad_input!(
                "its tensor {name} is {:?} {:?}; the run's model needs {shape}",
                found.dtype,
                found.shape
            ));
        }
        let buffer = client.buffer_from_host(&found.data, shape.dtype, shape.dims(), device)?;
        Ok((name.clone(), buffer))
    };
    variables.iter().map(put).collect()
}

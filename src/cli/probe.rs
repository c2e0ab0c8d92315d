//! `xla-moco probe`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::evaluation::{self, EvalArgs, Reports, Sets, Subject, by_class, lines, set_lines};
use super::table::aligned;
use crate::bad_input;
use crate::config::{Model, Output};
use crate::eval::probe::{Kept, LinearProbe, Mode, ProbeResult, Protocol};
use crate::hash::hex;
use crate::models::{self, Pool, Tap};
use crate::pjrt::Buffer;
use crate::programs::probe_step::{MOMENTUM, augmentation};

/// Train a linear classifier on frozen features and test it
///
/// SGD with momentum 0.9 on features of the base encoder in evaluation form (the
/// class token where the model has one); random resized crop and flip in training, the centre crop
/// in testing. All learning rates, on the features of all layers that are given,
/// are trained in one pass; the best on pictures held out of the training set is
/// tested.
///
/// The classifiers are kept after each epoch, in probes/ of the run's folder; the
/// same command again goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco probe --checkpoint runs/quickstart --data pictures/train --test pictures/test \
--lr 0.1,0.3,1,3 --json
  xla-moco probe --checkpoint runs/quickstart --fast --layers 2,3,4 --pool class,mean")]
pub struct Args {
    #[command(flatten)]
    pub common: EvalArgs,

    /// Train on features made once, without augmentation: quick, and not the
    /// published protocol
    #[arg(long)]
    pub fast: bool,

    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,

    /// Pictures a step
    #[arg(long, default_value_t = 1024)]
    pub batch: usize,

    /// Learning rates to choose from, for a batch of 256
    ///
    /// Each is scaled by batch / 256, and follows a cosine to 0 in steps of an
    /// epoch.
    #[arg(
        long,
        value_name = "RATES",
        value_delimiter = ',',
        default_value = "0.03,0.1,0.3,1,3,10"
    )]
    pub lr: Vec<f64>,

    /// Share of the training pictures on which the classifier is chosen; with
    /// one rate on one kind of features nothing is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub held_out: f64,

    /// Put a batch norm without gain and bias before the classifier
    #[arg(long)]
    pub bn: bool,

    /// Take the final norm's gain as 1 and its bias as 0: what training made of
    /// them scales the features, and so the learning rates
    #[arg(long)]
    pub reset_norm: bool,

    /// Features after so many blocks of a ViT, through the final norm; several
    /// separated by commas
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',')]
    pub layers: Vec<usize>,

    /// What is taken of a layer's tokens; by default the class token where the
    /// model has one, else the mean
    #[arg(long, value_enum, value_delimiter = ',')]
    pub pool: Vec<PoolArg>,

    /// The smallest random crop, as a share of the picture's area
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.08,
        conflicts_with = "fast"
    )]
    pub crop_min: f64,

    /// Folder for the classifiers after each epoch; by default one of the
    /// probe's own in probes/ of the run's folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PoolArg {
    Class,
    Mean,
}

impl Args {
    /// All layers with all pools; none where neither is given.
    fn taps(&self, model: &Model) -> Vec<Tap> {
        if self.layers.is_empty() && self.pool.is_empty() {
            return Vec::new();
        }
        let layers = match self.layers.is_empty() {
            true => vec![models::blocks(model)],
            false => self.layers.clone(),
        };
        let class = model.vit().is_some_and(|vit| vit.output == Output::Class);
        let pools = match (self.pool.is_empty(), class) {
            (true, true) => vec![Pool::Class],
            (true, false) => vec![Pool::Mean],
            (false, _) => self
                .pool
                .iter()
                .map(|pool| match pool {
                    PoolArg::Class => Pool::Class,
                    PoolArg::Mean => Pool::Mean,
                })
                .collect(),
        };
        let of_layer = |blocks: usize| {
            pools.iter().map(move |pool| Tap {
                blocks,
                pool: *pool,
            })
        };
        layers.into_iter().flat_map(of_layer).collect()
    }
}

/// # Errors
/// [`crate::bad_input!`] for a checkpoint, a configuration, data or a protocol
/// that cannot be used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let mut subject = Subject::open(&args.common)?;
    if args.reset_norm {
        subject.reset_norm()?;
    }
    let protocol = Protocol {
        mode: if args.fast {
            Mode::Cached
        } else {
            Mode::Augmented
        },
        epochs: args.epochs,
        batch: args.batch,
        taps: args.taps(&subject.config.model),
        crop_min: args.crop_min,
        base_rates: args.lr,
        batch_norm: args.bn,
        held_out: args.held_out,
    };
    if args.out.is_some() && subject.data.len() > 1 {
        return Err(bad_input!(
            "--out is one probe's folder: give it with one --data"
        ));
    }
    let (client, cache) = evaluation::client(&args.common.pjrt, &subject.config.gpu)?;
    let config = &subject.config;
    let prepared = subject.data.iter().map(|data| {
        let (train, test) = (&data.train, &data.test);
        LinearProbe::new(&client, config, &protocol, train, test, cache.as_ref())
    });
    // What is wrong with the last set is told before hours go into the first.
    let prepared: Vec<LinearProbe> = prepared.collect::<Result<_>>()?;
    let mut reports = Reports::new(args.common.json);
    for (data, probe) in subject.data.iter().zip(&prepared) {
        let told = described(&protocol, &subject, data, args.reset_norm)?;
        let kept = keep(
            args.out.as_deref(),
            &subject,
            identity(&told, &subject, data),
        )?;
        let variables = subject.upload(&client, probe.variables())?;
        let variables = variables
            .iter()
            .map(|(name, buffer)| (name.as_str(), buffer));
        let backbone: Vec<(&str, &Buffer)> = variables.collect();
        let result = probe.run(&backbone, kept.as_ref())?;
        let report = report(&result, told, &subject, data)?;
        reports.add(report.clone(), &text(&result, &protocol, &report)?)?;
    }
    reports.end()
}

/// What tells one probe from another, wherever its files lie: the description
/// without paths, the model, the labels (which no fingerprint of the pictures
/// knows), this program's version.
fn identity(told: &Json, subject: &Subject, data: &Sets) -> String {
    let mut told = told.clone();
    for (pointer, key) in [
        ("/train", "path"),
        ("/test", "path"),
        ("/checkpoint", "path"),
        ("", "set"),
    ] {
        if let Some(object) = told.pointer_mut(pointer).and_then(Json::as_object_mut) {
            object.remove(key);
        }
    }
    let mut hash = Sha256::new();
    hash.update(told.to_string());
    hash.update(subject.config.to_value()["model"].to_string());
    hash.update(env!("CARGO_PKG_VERSION"));
    for set in [&data.train, &data.test] {
        for index in 0..set.len() {
            let label = set.label(index).map_or(-1, i64::from);
            hash.update(label.to_le_bytes());
        }
    }
    hex(&hash.finalize())
}

/// Where the classifiers are kept. Without --out, and where the run's folder
/// cannot be written, they are not.
fn keep(out: Option<&Path>, subject: &Subject, identity: String) -> Result<Option<Kept>> {
    if let Some(folder) = out {
        return Kept::open(folder, &identity).map(Some);
    }
    let run = subject.loaded.path.canonicalize()?;
    let run = run.ancestors().nth(2).unwrap_or(&run);
    let folder = run.join("probes").join(&identity[..12]);
    match Kept::open(&folder, &identity) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            tracing::warn!("{error:#}; the probe starts anew if it is stopped (--out DIR)");
            Ok(None)
        }
    }
}

/// All that tells this probe from others, and that one must know to compare its
/// result with another's.
fn described(
    protocol: &Protocol,
    subject: &Subject,
    data: &Sets,
    norm_reset: bool,
) -> Result<Json> {
    let px = subject.config.model.image_size;
    let central = subject.crop();
    let (mode, train_crop) = match protocol.mode {
        Mode::Augmented => {
            let augment = augmentation(&subject.config, protocol.crop_min);
            let crop = format!(
                "random resized, area {}..1, to {px} x {px}; flipped with probability {}",
                augment.crop_min, augment.flip_p
            );
            ("full: augmented in training", crop)
        }
        Mode::Cached => (
            "fast: cached features, no augmentation; not the published protocol",
            central.clone(),
        ),
    };
    let layer = match protocol.taps.is_empty() {
        true => subject.layer(),
        false => {
            let taps: Vec<String> = protocol.taps.iter().map(Tap::to_string).collect();
            format!("{}, base encoder", taps.join("; "))
        }
    };
    Ok(json!({
        "mode": mode,
        "fast": protocol.mode == Mode::Cached,
        "epochs": protocol.epochs,
        "batch": protocol.batch,
        "optimizer": format!("SGD, momentum {MOMENTUM}, weight decay 0, cosine by epoch, no warm-up"),
        "rates": protocol.base_rates,
        "held_out": protocol.share(),
        "layer": layer,
        "batch_norm": protocol.batch_norm,
        "final_norm_reset": norm_reset,
        "train_crop": train_crop,
        "crop": central,
        "seed": subject.config.seed,
        "set": subject.told(),
        "train": evaluation::set(&data.train_name, &data.train, data.train.len())?,
        "test": evaluation::set(&data.test_name, &data.test, data.test.len())?,
        "checkpoint": subject.checkpoint(),
    }))
}

/// The result beside the description.
fn report(result: &ProbeResult, mut told: Json, subject: &Subject, data: &Sets) -> Result<Json> {
    let chosen = &result.classifiers[result.chosen];
    let selection = match result.held_out_pictures {
        0 => "one classifier, nothing held out".to_owned(),
        held_out => format!("best of the last epoch on {held_out} held-out training pictures"),
    };
    if let Some(place) = &chosen.features {
        told["layer"] = format!("{place}, base encoder").into();
    }
    let result = json!({
        "top1": result.test.top1,
        "lr": chosen,
        "sweep": result.classifiers,
        "selection": selection,
        "train": evaluation::set(&data.train_name, &data.train, result.train_pictures)?,
        "held_out_pictures": result.held_out_pictures,
        "test": evaluation::set(&data.test_name, &data.test, result.test_pictures)?,
        "checkpoint": subject.checkpoint(),
        "per_class": result.test.per_class,
        "confusions": result.test.confusions,
    });
    if let (Some(told), Json::Object(result)) = (told.as_object_mut(), result) {
        told.extend(result);
    }
    Ok(told)
}

/// The report for people.
fn text(result: &ProbeResult, protocol: &Protocol, report: &Json) -> Result<String> {
    let described = [
        ("mode", "/mode"),
        ("epochs", "/epochs"),
        ("batch", "/batch"),
        ("optimizer", "/optimizer"),
        ("chosen", "/selection"),
        ("layer", "/layer"),
        ("batch norm", "/batch_norm"),
        ("norm reset", "/final_norm_reset"),
        ("train crop", "/train_crop"),
        ("test crop", "/crop"),
        ("seed", "/seed"),
        ("checkpoint", "/checkpoint/path"),
        ("step", "/checkpoint/step"),
        ("SHA-256", "/checkpoint/sha256"),
    ];
    let head = [
        "base lr", "peak lr", "held-out", "training", "loss", "features", "",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for (at, one) in result.classifiers.iter().enumerate() {
        let percent = |x: f64| format!("{x:.2}%");
        rows.push([
            one.base.to_string(),
            one.peak.to_string(),
            one.held_out_top1.map_or("-".into(), percent),
            percent(one.train_top1),
            format!("{:.4}", one.train_loss),
            one.features.clone().unwrap_or_else(|| "output".into()),
            if at == result.chosen { "chosen" } else { "" }.into(),
        ]);
    }
    let name = match protocol.mode {
        Mode::Augmented => "linear probe",
        Mode::Cached => "linear probe (fast, not the published protocol)",
    };
    Ok(format!(
        "{name} top-1 {:.2}% of {} test pictures (chance {:.2}% with equal classes)\n\n{}{}\n{}{}",
        result.test.top1,
        result.test_pictures,
        100.0 / result.test.per_class.len() as f64,
        lines(report, &described)?,
        set_lines(report, &["train", "test"])?,
        aligned(&rows),
        by_class(&result.test.per_class, &result.test.confusions)?
    ))
}

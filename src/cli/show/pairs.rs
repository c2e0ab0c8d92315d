//! Augmented pairs: what a step of the run sees of its pictures.

use std::sync::Arc;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::{Value as Json, json};

use super::{Args, Subject};
use crate::cli::evaluation;
use crate::config::RunConfig;
use crate::data::augment::{self, COLUMNS};
use crate::data::{Batch, Dataset, Sampler, rand_augment};
use crate::error::BadInput;
use crate::eval::views;
use crate::pjrt::{Client, CompileCache};
use crate::report::show::picture::{self, shrunk};
use crate::report::show::{Pair, Pairs, View};
use crate::train::{self, Pictures, Places};

/// Pixels of all pictures together.
const PIXELS: usize = 1_000_000;

pub struct Found {
    pub shown: Pairs,
    pub report: Json,
}

/// The first rows of the step's batch, or why they cannot be had.
///
/// # Errors
/// The plugin's. That there are no pictures, or too few for the run's batch, is
/// no error: the page is of use without.
pub fn pairs(
    subject: &Subject,
    args: &Args,
    client: &Client,
    cache: Option<&CompileCache>,
) -> Result<Result<Found, String>> {
    match found(subject, args, client, cache) {
        Ok(found) => Ok(Ok(found)),
        Err(error) if error.chain().any(|cause| cause.is::<BadInput>()) => {
            Ok(Err(format!("{error:#}")))
        }
        Err(error) => Err(error),
    }
}

fn found(
    subject: &Subject,
    args: &Args,
    client: &Client,
    cache: Option<&CompileCache>,
) -> Result<Found> {
    let config = &subject.config;
    // The pictures that were given, else the run's own, which may have no labels.
    let (data, name) = match args.data {
        Some(_) => (subject.data.train.clone(), subject.data.train_name.clone()),
        None => (
            Pictures::of(config)?.train,
            Places::of(&config.data).train.path,
        ),
    };
    let step = args.step - 1;
    let rows = 0..config.batch.min(args.pictures as usize);
    let mut loader = train::loader(config, &data, rows.clone(), step..step + 1)?;
    let batch = loader.next().context("the loader gives no batch")??;
    let (_, samples) = Sampler::new(data.len(), config.batch, config.seed)?.batch(step)?;
    let number = config.method.name.views();
    let px = config.model.image_size;
    let made: Vec<Vec<Vec<u8>>> = (0..number)
        .map(|view| views::pictures(client, &config.augment, px, &batch, view, cache))
        .collect::<Result<_>>()?;

    let most = picture::side(rows.len() * (1 + number), PIXELS);
    let mut pairs = Vec::new();
    let mut told = Vec::new();
    for row in rows.clone() {
        let mut pair = original(&data, batch.ids[row], most)?;
        for (view, made) in made.iter().enumerate() {
            let picture = RgbImage::from_raw(px as u32, px as u32, made[row].clone());
            let picture = picture.context("the pixels do not fit the size")?;
            pair.views.push(View {
                picture: shrunk(picture, most),
                ..drawn(config, &batch, row, view, samples[row], pair.size)
            });
        }
        let views = pair
            .views
            .iter()
            .map(|view| json!({"cut": view.cut, "words": view.words}));
        told.push(json!({
            "picture": pair.name,
            "id": batch.ids[row],
            "size": [pair.size.0, pair.size.1],
            "views": views.collect::<Vec<_>>(),
        }));
        pairs.push(pair);
    }
    let seen = &subject.loaded.manifest.origin.data_fingerprint;
    let of_run = *seen == data.fingerprint()?;
    Ok(Found {
        shown: Pairs {
            words: words(config, args.step, &batch, rows.len(), of_run),
            pairs,
        },
        report: json!({
            "step": args.step,
            "epoch": batch.epoch,
            "seed": config.seed,
            "of_run": of_run,
            "data": evaluation::set(&name, &data, data.len())?,
            "pictures": told,
        }),
    })
}

fn words(config: &RunConfig, step: u64, batch: &Batch, rows: usize, of_run: bool) -> String {
    let whose = match of_run {
        true => "of the run",
        false => {
            "of a run on these pictures, as its configuration and seed say (the checkpoint does not \
             say that it was trained on just these)"
        }
    };
    let what = match config.method.name.views() {
        1 => "the view that its encoder is given, before it is mixed and erased",
        _ => "the two views that its encoders are given",
    };
    format!(
        "The first {rows} of {} pictures in step {step} {whose}, epoch {}: each as it is, with the \
         boxes that are cut out, and {what}, made by the program of the train step; only the \
         normalisation is undone.",
        config.batch, batch.epoch
    )
}

fn original(data: &Arc<Dataset>, id: u32, most: u32) -> Result<Pair> {
    let whole = data.decode(id as usize)?;
    let picture = RgbImage::from_raw(whole.width, whole.height, whole.rgb);
    Ok(Pair {
        picture: shrunk(picture.context("the pixels do not fit the size")?, most),
        size: (whole.width, whole.height),
        name: data.name(id as usize),
        views: Vec::new(),
    })
}

/// A view without its picture.
fn drawn(
    config: &RunConfig,
    batch: &Batch,
    row: usize,
    view: usize,
    sample: u32,
    size: (u32, u32),
) -> View {
    let (cut, _) = augment::draw(
        &config.augment,
        config.seed,
        batch.epoch,
        sample,
        view,
        size,
    );
    let area = f64::from(cut.width) * f64::from(cut.height);
    let share = 100.0 * area / (f64::from(size.0) * f64::from(size.1));
    let mut words = vec![format!(
        "{share:.0}% of the area: {} × {} at ({}, {})",
        cut.width, cut.height, cut.x, cut.y
    )];
    if let Some(rand) = &config.augment.rand_augment {
        let draws = rand_augment::draw(rand, config.seed, batch.epoch, sample);
        let each =
            |draw: &rand_augment::Draw| format!("{:?} {:.1}", draw.operation, draw.magnitude);
        words.extend(draws.iter().map(each));
    }
    words.extend(augment::words(
        &batch.params[view][row * COLUMNS..][..COLUMNS],
    ));
    View {
        picture: RgbImage::new(0, 0),
        cut: [cut.x, cut.y, cut.width, cut.height],
        words,
    }
}

//! What the page shows of test pictures: neighbours, the map, attention.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::{Value as Json, json};

use super::{Args, Subject};
use crate::bad_input;
use crate::data::{Dataset, eval_batches_of};
use crate::eval::attention::Attention as Program;
use crate::eval::extract::{Extractor, Pictures};
use crate::eval::knn::nearest;
use crate::eval::map::{Points, pca, tsne};
use crate::models;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::programs::features::Form;
use crate::report::show::picture::{self, shrunk};
use crate::report::show::{Attention, Labelled, Look, Map, Plane, Query};
use crate::rng::{Purpose, Stream};

/// Pixels of all pictures of a section together, so that the page stays small
/// whatever is asked for.
const NEIGHBOURS_PIXELS: usize = 1_200_000;
const ATTENTION_PIXELS: usize = 800_000;
const MAP_PIXELS: usize = 1_100_000;
/// No neighbour is shown larger than about this.
const NEIGHBOUR_SIDE: u32 = 128;
const POINT_SIDE: u32 = 32;
/// Weights of attention that the page has for reading.
const WEIGHTS: usize = 150_000;
/// Pictures that are decoded at once.
const BATCH: usize = 64;

pub struct Gathered {
    /// Training pictures among which neighbours were looked for.
    pub bank: usize,
    pub queries: Vec<Query>,
    /// The same for the JSON.
    pub neighbours: Vec<Json>,
    pub map: Map,
    pub planes: Json,
    pub attention: Result<Attention, String>,
}

/// Features of some pictures, by row.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    ids: Vec<u32>,
}

impl Gathered {
    pub fn new(
        subject: &Subject,
        args: &Args,
        client: &Arc<Client>,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        let (config, data) = (&subject.config, &subject.data);
        let workers = config.data.worker_count();
        let extractor = Extractor::new(client, config, Form::Unit, cache)?;
        let variables = subject.upload(client, extractor.variables())?;
        let features = |pictures: &Pictures| features(&extractor, &variables, pictures);
        let wanted = args.points.max(args.pictures) as usize;
        let drawn = draw(args.seed, data.test.len() as u32, wanted);
        let test = features(&Pictures::these(&data.test, drawn, workers))?;
        let limit = args.bank.map(|bank| bank as usize);
        let bank = features(&Pictures::new(&data.train, limit, workers, false))?;
        let (pictures, k) = (args.pictures as usize, args.neighbours as usize);
        for (what, wanted, found) in [
            ("pictures", pictures, test.ids.len()),
            ("neighbours", k, bank.ids.len()),
        ] {
            if wanted > found {
                return Err(bad_input!(
                    "--{what} {wanted} asks for more pictures than can be read: {found}"
                ));
            }
        }

        let dim = config.model.features();
        let asked = &test.bytes[..pictures * dim * 4];
        let found = nearest(client, dim, &bank.bytes, asked, k, cache)?;
        let near: Vec<(u32, f32)> = found
            .rows
            .iter()
            .map(|row| bank.ids[*row as usize])
            .zip(found.cosines)
            .collect();
        let seen = seen(subject, &test.ids[..pictures])?;
        let queries = queries(subject, &test.ids[..pictures], &seen, &near)?;
        let points = args.points as usize;
        let ids = &test.ids[..points.min(test.ids.len())];
        let (map, planes) = map(
            subject,
            ids,
            Points::from_f32(dim, &test.bytes[..ids.len() * dim * 4]),
        )?;
        Ok(Self {
            bank: bank.ids.len(),
            neighbours: told(subject, &test.ids[..pictures], &near),
            queries,
            map,
            planes,
            attention: attention(subject, client, cache, &test.ids[..pictures], &seen)?,
        })
    }
}

/// So many different ones of 0..len, or all, in a random order.
fn draw(seed: u64, len: u32, count: usize) -> Vec<u32> {
    let mut stream = Stream::new(seed, Purpose::Show, (0, 0));
    let mut ids: Vec<u32> = (0..len).collect();
    let count = count.min(ids.len());
    for place in 0..count {
        let other = place as u32 + stream.below(len - place as u32);
        ids.swap(place, other as usize);
    }
    ids.truncate(count);
    ids
}

fn features(
    extractor: &Extractor,
    variables: &[(String, Buffer)],
    pictures: &Pictures,
) -> Result<Rows> {
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let mut rows = Rows::default();
    extractor.each(&backbone, pictures, |row, id, _| {
        rows.bytes.extend(row);
        rows.ids.push(id);
    })?;
    let (words, _) = rows.bytes.as_chunks::<4>();
    if words.iter().any(|w| !f32::from_le_bytes(*w).is_finite()) {
        return Err(bad_input!(
            "the checkpoint makes features that are NaN or infinite: its run has diverged, or its \
             variables are broken; show an earlier one"
        ));
    }
    Ok(rows)
}

/// The pictures as the model sees them, in the order of `ids`, each made what
/// `make` makes of it.
fn crops<T>(
    data: &Arc<Dataset>,
    subject: &Subject,
    ids: &[u32],
    make: impl Fn(RgbImage) -> T,
) -> Result<Vec<T>> {
    let (px, workers) = (
        subject.config.model.image_size as u32,
        subject.config.data.worker_count(),
    );
    let mut made = Vec::with_capacity(ids.len());
    for batch in eval_batches_of(data, ids.to_vec(), px, BATCH, workers)? {
        let batch = batch?;
        let size = 3 * px as usize * px as usize;
        for rgb in batch.pictures.chunks_exact(size).take(batch.ids.len()) {
            let picture = RgbImage::from_raw(px, px, rgb.to_vec());
            made.push(make(picture.context("the pixels do not fit the size")?));
        }
    }
    match made.len() == ids.len() {
        true => Ok(made),
        false => Err(bad_input!(
            "pictures could be read a moment ago and cannot any more: is something changing them?"
        )),
    }
}

fn seen(subject: &Subject, ids: &[u32]) -> Result<Vec<RgbImage>> {
    crops(&subject.data.test, subject, ids, |picture| picture)
}

/// A picture's class, where labels tell classes apart.
pub fn class(data: &Dataset, id: u32) -> Option<&str> {
    let label = data.label(id as usize).filter(|_| data.is_labelled())?;
    data.classes().get(label as usize).map(String::as_str)
}

fn labelled(data: &Dataset, id: u32, picture: RgbImage) -> Labelled {
    Labelled {
        picture,
        name: data.name(id as usize),
        class: class(data, id).map(str::to_owned),
    }
}

/// `near` has the neighbours of all pictures, as many of each.
fn queries(
    subject: &Subject,
    ids: &[u32],
    seen: &[RgbImage],
    near: &[(u32, f32)],
) -> Result<Vec<Query>> {
    let data = &subject.data;
    let mut distinct: Vec<u32> = near.iter().map(|(id, _)| *id).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let most = picture::side(ids.len() + near.len(), NEIGHBOURS_PIXELS).min(NEIGHBOUR_SIDE);
    let small = crops(&data.train, subject, &distinct, |picture| {
        shrunk(picture, most)
    })?;
    let small: BTreeMap<u32, RgbImage> = distinct.into_iter().zip(small).collect();
    let each = |((id, picture), near): ((&u32, &RgbImage), &[(u32, f32)])| Query {
        asked: labelled(&data.test, *id, shrunk(picture.clone(), most)),
        near: near
            .iter()
            .map(|(id, cosine)| (labelled(&data.train, *id, small[id].clone()), *cosine))
            .collect(),
    };
    let near = near.chunks(near.len() / ids.len());
    Ok(ids.iter().zip(seen).zip(near).map(each).collect())
}

fn told(subject: &Subject, ids: &[u32], near: &[(u32, f32)]) -> Vec<Json> {
    let data = &subject.data;
    let picture = |data: &Dataset, id: u32| json!({"picture": data.name(id as usize), "id": id, "class": class(data, id)});
    let each = |(id, near): (&u32, &[(u32, f32)])| {
        let own = class(&data.test, *id);
        let near = near.iter().map(|(id, cosine)| {
            let mut told = picture(&data.train, *id);
            let other = class(&data.train, *id);
            told["cosine"] = json!(cosine);
            told["right"] = json!(own.zip(other).map(|(own, other)| own == other));
            told
        });
        let mut told = picture(&data.test, *id);
        told["nearest"] = near.collect();
        told
    };
    let near = near.chunks(near.len() / ids.len());
    ids.iter().zip(near).map(each).collect()
}

/// The plane of the neighbours first, then that of the variance.
fn map(subject: &Subject, ids: &[u32], points: Points) -> Result<(Map, Json)> {
    let test = &subject.data.test;
    let side = picture::side(ids.len(), MAP_PIXELS)
        .min(POINT_SIDE)
        .min(subject.config.model.image_size as u32);
    let small = crops(test, subject, ids, |picture| shrunk(picture, side))?;
    let tsne = tsne(&points);
    let pca = pca(&points);
    let [first, second] = pca.share.map(|share| 100.0 * share);
    let mut planes = vec![Plane {
        name: "PCA",
        words: format!(
            "The two directions in which the features of these {} pictures vary most: {first:.1}% \
             and {second:.1}% of the variance. Features have length 1.",
            points.len()
        ),
        points: pca.points,
    }];
    if let Some(tsne) = &tsne {
        let plane = Plane {
            name: "t-SNE",
            words: format!(
                "t-SNE of the features of these {} pictures, perplexity {:.0}, begun from the PCA: \
                 near points are near in the features; sizes of groups and distances between them \
                 mean little. Divergence left: {:.2}.",
                points.len(),
                tsne.perplexity,
                tsne.divergence
            ),
            points: tsne.points.clone(),
        };
        planes.insert(0, plane);
    }
    let told = json!({
        "points": ids.len(),
        "planes": planes.iter().map(|plane| plane.name).collect::<Vec<_>>(),
        "pca_share": pca.share,
        "tsne": tsne.map(|tsne| json!({"perplexity": tsne.perplexity, "divergence": tsne.divergence})),
    });
    let labels = |id: &u32| test.label(*id as usize).filter(|_| test.is_labelled());
    let map = Map {
        names: ids.iter().map(|id| test.name(*id as usize)).collect(),
        labels: ids.iter().map(labels).collect(),
        classes: match test.is_labelled() {
            true => test.classes().to_vec(),
            false => Vec::new(),
        },
        sheet: picture::sheet(&small, side)?,
        planes,
    };
    Ok((map, told))
}

fn attention(
    subject: &Subject,
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
    ids: &[u32],
    seen: &[RgbImage],
) -> Result<Result<Attention, String>> {
    let model = &subject.config.model;
    let without = models::without_class_token(model);
    let (None, Some(vit)) = (without, model.vit()) else {
        return Ok(Err(without.unwrap_or("this backbone is no ViT").to_owned()));
    };
    let side = vit.side(model.image_size);
    let program = Program::new(client, &subject.config, cache)?;
    let variables = subject.upload(client, program.variables())?;
    let tokens = 1 + side * side;
    let fitting = (WEIGHTS / ((vit.heads + 1) * tokens)).clamp(1, ids.len());
    let test = &subject.data.test;
    let most = picture::side(fitting, ATTENTION_PIXELS);
    let look = |(id, picture): (&u32, &RgbImage)| -> Result<Look> {
        let weights = program.of(&variables, picture.as_raw())?;
        let Labelled {
            picture,
            name,
            class,
        } = labelled(test, *id, shrunk(picture.clone(), most));
        Ok(Look {
            picture,
            name,
            class,
            heads: weights.chunks_exact(tokens).map(<[f32]>::to_vec).collect(),
        })
    };
    let looked = ids
        .iter()
        .zip(seen)
        .take(fitting)
        .map(look)
        .collect::<Result<_>>()?;
    let some = match fitting < ids.len() {
        true => format!("; the first {fitting} of the random pictures"),
        false => String::new(),
    };
    Ok(Ok(Attention {
        words: format!(
            "How the class token weighs the {side} × {side} patches in the last block ({} of {}), \
             for each of {} heads and their mean{some}. The weights of all patches and of the class \
             token itself sum to 1. Colours go from the least to the greatest weight of each tile; \
             below it stand the greatest and the token's own.",
            vit.blocks, vit.blocks, vit.heads
        ),
        side,
        looked,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_drawn_once_by_the_seed() {
        let drawn = draw(3, 100, 20);
        let mut sorted = drawn.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((drawn.len(), sorted.len()), (20, 20));
        assert!(sorted.iter().all(|id| *id < 100));
        assert_eq!(draw(3, 100, 20), drawn);
        assert_eq!(draw(3, 100, 5), drawn[..5]);
        assert_ne!(draw(4, 100, 20), drawn);
        assert_eq!(draw(0, 3, 9).len(), 3);
    }
}

//! Classification of held-out pictures by their nearest neighbours.
//!
//! The protocol: class-token features after the final norm of the base
//! encoder in evaluation form, without augmentation; cosine; each of the k
//! nearest training pictures votes for its class with weight
//! exp(cosine / temperature) (Wu et al. 2018).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::extract::{Extractor, Features, Pictures};
use super::vote::{ClassResult, Confusion, Neighbours};
use crate::bad_input;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::graph::{DType, Shape};
use crate::pjrt::{Arg, Buffer, Client, CompileCache, CompileOptions, Pending, Program};
use crate::programs::features::Form;
use crate::programs::neighbours;

/// Queries searched at once. So few that their cosines with 50,000 pictures
/// stay under 32 MiB: above that, memory is fresh from the system each time,
/// which on the CPU costs more than the product.
const QUERIES: usize = 128;
/// Decoded pictures that are kept from one evaluation to the next.
const KEEP_BYTES: usize = 256 << 20;

/// Accuracy with its protocol.
#[derive(Clone, Debug)]
pub struct KnnResult {
    /// Percent of the queries.
    pub top1: f64,
    /// Neighbours that voted.
    pub k: usize,
    pub temperature: f64,
    /// Pictures in the bank.
    pub bank: usize,
    pub queries: usize,
    pub per_class: Vec<ClassResult>,
    /// Most frequent first.
    pub confusions: Vec<Confusion>,
}

/// A bank and queries, and the program that makes features of them.
pub struct HeldOut {
    client: Arc<Client>,
    extractor: Extractor,
    bank: Pictures,
    queries: Pictures,
    k: usize,
    temperature: f64,
    cache: Option<CompileCache>,
}

impl HeldOut {
    /// Compiles the features program for the client's first device. `train`
    /// is the bank and `test` the queries, both as far as the limits in
    /// `config.eval` go; labels of `test` must be those of `train`'s classes.
    ///
    /// # Errors
    /// [`bad_input!`] if either is not labelled; the compiler's.
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        train: &Arc<Dataset>,
        test: &Arc<Dataset>,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        for (what, data) in [("training", train), ("test", test)] {
            if !data.is_labelled() {
                return Err(bad_input!(
                    "the {what} pictures have no labels, or all the same one; nearest \
                     neighbours need pictures in at least two class folders"
                ));
            }
        }
        let eval = &config.eval;
        let pictures =
            |data, limit, keep| Pictures::new(data, limit, config.data.worker_count(), keep);
        let view = 3 * config.model.image_size.pow(2);
        let count = |data: &Dataset, limit: Option<usize>| {
            limit.map_or(data.len(), |limit| limit.min(data.len()))
        };
        let all = count(train, eval.bank_limit) + count(test, eval.query_limit);
        let keep = all.saturating_mul(view) <= KEEP_BYTES;
        Ok(Self {
            client: client.clone(),
            extractor: Extractor::new(client, config, Form::Unit, cache)?,
            bank: pictures(train, eval.bank_limit, keep),
            queries: pictures(test, eval.query_limit, keep),
            k: eval.knn_k,
            temperature: eval.knn_temperature,
            cache: cache.cloned(),
        })
    }

    /// Names and shapes of the variables that [`HeldOut::evaluate`] needs.
    pub fn variables(&self) -> &[(String, Shape)] {
        self.extractor.variables()
    }

    /// Classifies the queries with the configuration's `k`, or with the whole
    /// bank where that is smaller. `backbone` has the state's `base_encoder.*`
    /// on the client's first device; what else it has is not looked at.
    ///
    /// # Errors
    /// If a variable is missing, too many pictures are corrupt, or the device
    /// fails.
    pub fn evaluate(&self, backbone: &[(&str, &Buffer)]) -> Result<KnnResult> {
        let found = self.neighbours(backbone, self.k)?;
        Ok(found.vote(found.k(), self.temperature))
    }

    /// The `k` nearest pictures of the bank for each query, or all of it where
    /// it has fewer. `backbone` as for [`HeldOut::evaluate`].
    ///
    /// # Errors
    /// As [`HeldOut::evaluate`].
    pub fn neighbours(&self, backbone: &[(&str, &Buffer)], k: usize) -> Result<Found> {
        let start = Instant::now();
        let bank = self.extractor.run(backbone, &self.bank)?;
        let queries = self.extractor.run(backbone, &self.queries)?;
        if bank.labels.is_empty() || queries.labels.is_empty() {
            return Err(bad_input!(
                "of the pictures chosen, {} in the bank and {} of the queries have a label",
                bank.labels.len(),
                queries.labels.len()
            ));
        }
        tracing::debug!(
            "features of {} + {} pictures: {:.1?}",
            bank.labels.len(),
            queries.labels.len(),
            start.elapsed()
        );
        let k = k.min(bank.labels.len());
        let neighbours = search(&self.client, &bank, &queries, k, self.cache.as_ref())?;
        tracing::debug!("with their neighbours: {:.1?}", start.elapsed());
        Ok(Found {
            neighbours,
            bank: bank.labels.len(),
            classes: self.bank.data.classes().to_vec(),
        })
    }
}

/// The neighbours of all queries; they serve every smaller k and every
/// temperature.
#[derive(Clone, Debug)]
pub struct Found {
    neighbours: Neighbours,
    bank: usize,
    classes: Vec<String>,
}

impl Found {
    /// Neighbours of each query.
    pub fn k(&self) -> usize {
        self.neighbours.k
    }

    /// Lets the `k` nearest vote.
    ///
    /// # Panics
    /// If `k` is 0 or above [`Found::k`].
    pub fn vote(&self, k: usize, temperature: f64) -> KnnResult {
        let tally = self.neighbours.tally(k, temperature, &self.classes);
        KnnResult {
            top1: tally.top1,
            k,
            temperature,
            bank: self.bank,
            queries: self.neighbours.actual.len(),
            per_class: tally.per_class,
            confusions: tally.confusions,
        }
    }
}

/// The `k` nearest of `bank` for each of `queries`, and their classes: see
/// [`nearest`].
///
/// # Errors
/// As [`nearest`].
pub fn search(
    client: &Client,
    bank: &Features,
    queries: &Features,
    k: usize,
    cache: Option<&CompileCache>,
) -> Result<Neighbours> {
    let found = nearest(client, bank.dim, &bank.bytes, &queries.bytes, k, cache)?;
    let class = |row: &u32| bank.labels[*row as usize];
    Ok(Neighbours {
        k,
        classes: found.rows.iter().map(class).collect(),
        cosines: found.cosines,
        actual: queries.labels.clone(),
    })
}

/// Nearest rows of a bank, `k` for each query, nearest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nearest {
    pub cosines: Vec<f32>,
    /// Their places in the bank.
    pub rows: Vec<u32>,
}

/// The `k` nearest rows of `bank` for each row of `queries`, both of `dim` f32 of
/// length 1, little-endian; searched exhaustively on the client's first device.
/// Of equally near ones the first in the bank.
///
/// # Errors
/// If `k` is above the size of the bank, or the device fails.
pub fn nearest(
    client: &Client,
    dim: usize,
    bank: &[u8],
    queries: &[u8],
    k: usize,
    cache: Option<&CompileCache>,
) -> Result<Nearest> {
    let rows = bank.len() / (4 * dim);
    let program = neighbours::build(rows, QUERIES, dim, k)?;
    let text = program.text();
    let (executable, _) =
        client.compile_cached(&Program { text: &text }, &CompileOptions::default(), cache)?;
    let device = &client.devices()[0];
    let upload =
        |bytes: &[u8], rows| client.buffer_from_host(bytes, DType::F32, &[rows, dim], device);
    let bank_on_device = upload(bank, rows)?;

    let mut found = Nearest::default();
    let mut take = |[cosines, rows]: [Pending; 2], count: usize| -> Result<()> {
        let words = |bytes: Vec<u8>| {
            let words: Vec<[u8; 4]> = bytes.as_chunks().0.to_vec();
            words.into_iter().take(count * k)
        };
        let cosines = words(cosines.wait()?).map(f32::from_le_bytes);
        found.cosines.extend(cosines);
        found
            .rows
            .extend(words(rows.wait()?).map(u32::from_le_bytes));
        Ok(())
    };
    let mut under_way: VecDeque<([Pending; 2], usize)> = VecDeque::new();
    for chunk in queries.chunks(QUERIES * dim * 4) {
        if under_way.len() == 2
            && let Some((pending, count)) = under_way.pop_front()
        {
            take(pending, count)?;
        }
        let count = chunk.len() / (dim * 4);
        let mut padded = chunk.to_vec();
        padded.resize(QUERIES * dim * 4, 0);
        let queries = upload(&padded, QUERIES)?;
        let arguments = vec![Arg::Borrow(&bank_on_device), Arg::Borrow(&queries)];
        let run = executable.execute(vec![arguments])?;
        let [cosines, rows] = [0, 1].map(|i| run.buffers[0][i].to_host_async());
        under_way.push_back(([cosines?, rows?], count));
    }
    for (pending, count) in under_way {
        take(pending, count)?;
    }
    Ok(found)
}

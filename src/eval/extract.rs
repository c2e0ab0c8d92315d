//! Features of whole sets of pictures, batch by batch.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow};

use crate::config::RunConfig;
use crate::data::{Dataset, EvalBatch, EvalBatches, eval_batches, eval_batches_of};
use crate::graph::{DType, Shape};
use crate::pjrt::{
    Arg, Buffer, Client, CompileCache, CompileOptions, Executable, Pending, Program,
};
use crate::programs::features::{self, Form};

/// Batches under way on the device: one runs while the next is uploaded.
const IN_FLIGHT: usize = 2;

/// Pictures a batch: about 16,000 tokens of them, at most 256.
fn batch_size(tokens: usize) -> usize {
    let fitting = (16_384 / tokens).clamp(1, 256);
    1 << fitting.ilog2()
}

/// The pictures of a data set, or some of them, as the features program takes
/// them.
pub struct Pictures {
    pub(super) data: Arc<Dataset>,
    which: Which,
    workers: usize,
    kept: Option<OnceLock<Vec<EvalBatch>>>,
}

/// Which pictures of a data set.
enum Which {
    All,
    Drawn(usize),
    These(Vec<u32>),
}

impl Pictures {
    /// With `keep`, they are decoded once and kept in memory from then on.
    pub fn new(data: &Arc<Dataset>, limit: Option<usize>, workers: usize, keep: bool) -> Self {
        Self {
            data: data.clone(),
            which: limit.map_or(Which::All, Which::Drawn),
            workers,
            kept: keep.then(OnceLock::new),
        }
    }

    /// Those with these ids, in this order.
    pub fn these(data: &Arc<Dataset>, ids: Vec<u32>, workers: usize) -> Self {
        Self {
            data: data.clone(),
            which: Which::These(ids),
            workers,
            kept: None,
        }
    }

    fn batches(&self, px: u32, batch: usize) -> Result<EvalBatches> {
        let limit = match &self.which {
            Which::These(ids) => {
                return eval_batches_of(&self.data, ids.clone(), px, batch, self.workers);
            }
            Which::All => None,
            Which::Drawn(limit) => Some(*limit),
        };
        eval_batches(&self.data, px, batch, limit, self.workers)
    }

    /// How many there are, at most.
    fn count(&self) -> usize {
        match &self.which {
            Which::All => self.data.len(),
            Which::Drawn(limit) => self.data.len().min(*limit),
            Which::These(ids) => ids.len(),
        }
    }

    fn each(
        &self,
        px: usize,
        batch: usize,
        mut f: impl FnMut(&EvalBatch) -> Result<()>,
    ) -> Result<()> {
        if let Some(kept) = self.kept.as_ref().and_then(OnceLock::get) {
            return kept.iter().try_for_each(f);
        }
        let mut batches = self.batches(px as u32, batch)?;
        let mut all = Vec::new();
        for found in &mut batches {
            let found = found?;
            f(&found)?;
            if self.kept.is_some() {
                all.push(found);
            }
        }
        for corrupt in batches.corrupt() {
            tracing::warn!("left out: {}: {}", corrupt.name, corrupt.error);
        }
        if let Some(kept) = &self.kept {
            // Equal to what another thread may have put there meanwhile.
            let _ = kept.set(all);
        }
        Ok(())
    }
}

/// Features on the host, one row for each labelled picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    pub dim: usize,
    /// Rows of `dim` f32 each, little-endian.
    pub bytes: Vec<u8>,
    pub labels: Vec<u32>,
}

/// The features program on the first device of a client.
pub struct Extractor {
    client: Arc<Client>,
    executable: Executable,
    /// The variables that it takes before the pictures.
    variables: Vec<(String, Shape)>,
    batch: usize,
    px: usize,
    dim: usize,
}

impl Extractor {
    /// Builds and compiles the program for the model of a configuration.
    ///
    /// # Errors
    /// The compiler's.
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        form: Form,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        let mut config = config.clone();
        config.mesh.data = 1;
        let batch = batch_size(config.model.tokens());
        let dim = form.width(&config);
        let program = features::build(&config, batch, form)?;
        let (executable, origin) = client.compile_cached(
            &Program {
                text: &program.text(),
            },
            &CompileOptions::default(),
            cache,
        )?;
        tracing::debug!("features program for {batch} pictures: from the {origin:?}");
        let inputs = program.graph.inputs.iter();
        let mut variables: Vec<(String, Shape)> = inputs
            .map(|input| (input.name.clone(), input.value.shape))
            .collect();
        variables.pop().context("the program takes no pictures")?;
        Ok(Self {
            client: client.clone(),
            executable,
            variables,
            batch,
            px: config.model.image_size,
            dim,
        })
    }

    /// Names and shapes of the variables that [`Extractor::run`] needs.
    pub fn variables(&self) -> &[(String, Shape)] {
        &self.variables
    }

    /// The features of all labelled pictures, in the order of their ids.
    ///
    /// # Errors
    /// As [`Extractor::each`].
    pub fn run(&self, backbone: &[(&str, &Buffer)], pictures: &Pictures) -> Result<Features> {
        let mut features = Features {
            dim: self.dim,
            ..Features::default()
        };
        // As much as there will be, at most: growth would double it for a while.
        features
            .bytes
            .reserve_exact(4 * self.dim * pictures.count());
        self.each(backbone, pictures, |row, _, label| {
            if let Ok(label) = u32::try_from(label) {
                features.bytes.extend(row);
                features.labels.push(label);
            }
        })?;
        Ok(features)
    }

    /// Gives the features of each picture to `take`, in the order of the pictures:
    /// f32, little-endian; with its id and its label, -1 for none.
    ///
    /// # Errors
    /// If a variable is missing, too many pictures are corrupt, or the device
    /// fails.
    pub fn each(
        &self,
        backbone: &[(&str, &Buffer)],
        pictures: &Pictures,
        mut take: impl FnMut(&[u8], u32, i32),
    ) -> Result<()> {
        let find = |(name, _): &(String, Shape)| -> Result<&Buffer> {
            let found = backbone.iter().find(|(given, _)| given == name);
            found
                .map(|(_, buffer)| *buffer)
                .ok_or_else(|| anyhow!("the state has no variable {name}"))
        };
        let variables: Vec<&Buffer> = self.variables.iter().map(find).collect::<Result<_>>()?;
        let dims = [self.batch, self.px, self.px, 3];
        let device = &self.client.devices()[0];
        let mut under_way: VecDeque<(Pending, Vec<u32>, Vec<i32>)> = VecDeque::new();
        // Waits for a batch and gives its rows; padding has no id.
        let mut finish = |batch: Option<(Pending, Vec<u32>, Vec<i32>)>| -> Result<()> {
            let Some((rows, ids, labels)) = batch else {
                return Ok(());
            };
            let rows = rows.wait()?;
            for (row, (id, label)) in rows.chunks_exact(4 * self.dim).zip(ids.iter().zip(labels)) {
                take(row, *id, label);
            }
            Ok(())
        };
        pictures.each(self.px, self.batch, |batch| {
            if under_way.len() == IN_FLIGHT {
                finish(under_way.pop_front())?;
            }
            let pixels = self
                .client
                .buffer_from_host(&batch.pictures, DType::U8, &dims, device)?;
            let mut arguments: Vec<Arg> = variables.iter().map(|v| Arg::Borrow(v)).collect();
            arguments.push(Arg::Borrow(&pixels));
            let run = self.executable.execute(vec![arguments])?;
            let rows = run.buffers[0][0].to_host_async()?;
            under_way.push_back((rows, batch.ids.clone(), batch.labels.clone()));
            Ok(())
        })?;
        while !under_way.is_empty() {
            finish(under_way.pop_front())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_about_as_many_tokens() {
        for (tokens, expected) in [(17, 256), (197, 64), (1 + 64 * 64, 2), (1 << 20, 1)] {
            assert_eq!(batch_size(tokens), expected, "{tokens}");
        }
    }
}

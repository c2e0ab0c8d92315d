//! Whether a folder that `convert` wrote still gives the features that it was
//! written with.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::infer::Hints;
use super::parity::{self, TOLERANCE};
use super::weights::{Weights, read};
use crate::bad_input;
use crate::graph::Shape;
use crate::pjrt::{Client, CompileCache};

/// The largest program text that is read back.
const MAX_PROGRAM: u64 = 256 << 20;

/// What was compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Features compared.
    pub features: usize,
    /// |found - stored| / |stored|.
    pub distance: f64,
    /// What computed them.
    pub by: &'static str,
}

/// Computes the features of the parity pictures again, from what lies in the
/// folder: with the folder's own program where it is one of StableHLO, else
/// with ours and the folder's weights.
///
/// # Errors
/// [`bad_input!`] for features that are not those stored, and for a folder
/// that cannot be read.
pub fn verify(
    folder: &Path,
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
) -> Result<Verified> {
    let stored = parity::stored(folder)?;
    let weights = read(folder, None, &Hints::default())?;
    let pictures = parity::pictures(weights.config.model.image_size);
    let program = folder.join("model.mlir");
    let (found, by) = match program.is_file() {
        true => (
            of_program(&program, client, cache, &weights, &pictures)?,
            "the folder's own program",
        ),
        false => (
            parity::features(client, cache, &weights, &pictures)?,
            "our program with the folder's weights",
        ),
    };
    let distance = parity::distance(&found, &stored);
    if distance > TOLERANCE {
        return Err(bad_input!(
            "{} does not give the features that it was written with: {distance:.1e} off, computed \
             by {by}; at most {TOLERANCE:.0e} is expected. Weights, heads or description have been \
             changed since: convert anew",
            folder.display()
        ));
    }
    Ok(Verified {
        features: stored.len(),
        distance,
        by,
    })
}

/// Features by a folder's program, whose batch is filled with the pictures over
/// and over.
fn of_program(
    path: &Path,
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
    weights: &Weights,
    pictures: &[u8],
) -> Result<Vec<f32>> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MAX_PROGRAM {
        return Err(bad_input!("{} has {bytes} bytes, too many", path.display()));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| bad_input!("cannot read {}: {error}", path.display()))?;
    let signature = super::folder::json(&path.with_extension("signature.json"))?;
    let unlike = || bad_input!("its signature is not one of convert's");
    let inputs = signature["inputs"].as_array().ok_or_else(unlike)?;
    let dims = inputs.last().map(|input| input["shape"].clone());
    let dims: Vec<usize> =
        serde_json::from_value(dims.ok_or_else(unlike)?).map_err(|_| unlike())?;
    let side = weights.config.model.image_size;
    let batch = match dims[..] {
        [batch, s, t, 3] if s == side && t == side && (1..=1 << 16).contains(&batch) => batch,
        _ => return Err(unlike()),
    };
    let one = side * side * 3;
    let mut all = Vec::new();
    let dim = weights.config.model.features();
    for start in (0..parity::PICTURES).step_by(batch) {
        let row = |i: usize| {
            let at = (start + i) % parity::PICTURES * one;
            &pictures[at..at + one]
        };
        let rows: Vec<u8> = (0..batch).flat_map(row).copied().collect();
        let mut arguments = Vec::new();
        for input in &inputs[..inputs.len() - 1] {
            let name = input["name"].as_str().ok_or_else(unlike)?;
            let tensor = weights.get(name.strip_prefix("base_encoder.").unwrap_or(name))?;
            let shape = Shape::new(crate::graph::DType::F32, &tensor.shape);
            arguments.push((shape, &tensor.data[..]));
        }
        let shape = Shape::new(crate::graph::DType::U8, &dims);
        arguments.push((shape, &rows[..]));
        let found = parity::run(client, cache, &text, &arguments)?;
        let wanted = (parity::PICTURES - start).min(batch) * dim;
        all.extend_from_slice(found.get(..wanted).ok_or_else(unlike)?);
    }
    Ok(all)
}

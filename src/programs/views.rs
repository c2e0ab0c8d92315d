//! One view of pictures as the train step makes it, alone.

use super::Program;
use super::augment::augment;
use crate::config::Augment;
use crate::data::augment::COLUMNS;
use crate::graph::{Builder, DType, Result, Shape};

/// Arguments: `crops`, u8 [batch, side, side, 3], as the host cut them out, and
/// `rows`, f32 [batch, [`COLUMNS`]], as it drew them. Result: `view`, f32 [batch,
/// 3, side, side], normalised: what the encoder is given as view `view`, 0 or 1.
///
/// # Errors
/// As [`augment`].
pub fn build(config: &Augment, batch: usize, side: usize, view: usize) -> Result<Program> {
    let b = Builder::new();
    let crops = b.input("crops", Shape::new(DType::U8, &[batch, side, side, 3]));
    let rows = b.input("rows", Shape::new(DType::F32, &[batch, COLUMNS]));
    let view = augment(&b, crops, rows, config, view)?;
    b.output("view", view);
    Ok(Program {
        name: "views",
        graph: b.finish()?,
        mesh: None,
        state: 0,
        metrics: Vec::new(),
    })
}

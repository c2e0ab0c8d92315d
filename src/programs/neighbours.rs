//! The nearest neighbours of some pictures among others, by cosine.

use super::Program;
use crate::graph::{Builder, DType, Result, Shape};

/// Arguments: `bank`, f32 [bank, dim], and `queries`, f32 [queries, dim], rows
/// of length 1. Results, nearest first, of equal ones the first in the bank:
/// `cosines`, f32 [queries, k], and `rows`, i32 [queries, k], which are places
/// in the bank.
///
/// # Errors
/// If `k` is above `bank`.
pub fn build(bank: usize, queries: usize, dim: usize, k: usize) -> Result<Program> {
    let b = Builder::new();
    let bank = b.input("bank", Shape::new(DType::F32, &[bank, dim]));
    let queries = b.input("queries", Shape::new(DType::F32, &[queries, dim]));
    let [cosines, rows] = b.top_k(b.dot(queries, bank, &[1], &[1])?, k)?;
    b.output("cosines", cosines);
    b.output("rows", rows);
    Ok(Program {
        name: "neighbours",
        graph: b.finish()?,
        mesh: None,
        state: 0,
        metrics: Vec::new(),
    })
}

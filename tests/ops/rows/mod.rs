//! The table: every op, in the order of the files under `src/graph/ops`.

mod attention;
mod control;
mod elementwise;
mod index;
mod linear;
mod movement;
mod reduce;

use crate::row::Row;

pub fn all() -> Vec<Row> {
    [
        attention::rows(),
        elementwise::rows(),
        movement::rows(),
        linear::rows(),
        reduce::rows(),
        index::rows(),
        control::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

//! What the table says of shape rules and refusals: no plugin is needed.

use std::collections::BTreeSet;

use xla_moco::graph::ops::Op;
use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Node, Shape, Value};

use crate::row::Gradient;
use crate::rows;

const SCOPE: &str = "base_encoder/blocks.3/attn";

fn inputs(b: &Builder, shapes: &[Shape]) -> Vec<Value> {
    shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| b.input(format!("x{i}"), *shape))
        .collect()
}

#[test]
fn every_op_has_a_row_and_a_refusal() {
    let mut covered = BTreeSet::new();
    let mut refusing = BTreeSet::new();
    for row in rows::all() {
        let b = Builder::new();
        let args = inputs(&b, &row.shapes(DType::F32));
        let results =
            (row.build)(&b, DType::F32, &args).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        for result in results {
            b.output("result", result);
        }
        let graph = b.finish().unwrap();
        let has = |n: &Node| n.op.variant() == row.op;
        assert!(
            graph.nodes().iter().any(has),
            "{} adds no {}",
            row.name,
            row.op
        );
        covered.insert(row.op);
        if !row.refuses.is_empty() {
            refusing.insert(row.op);
        }
    }
    let all: BTreeSet<&str> = Op::VARIANTS.iter().copied().collect();
    assert_eq!(covered, all, "ops with a row against all ops");
    assert_eq!(refusing, all, "ops with a refusal against all ops");
}

#[test]
fn names_of_rows_are_distinct() {
    let mut seen = BTreeSet::new();
    for row in rows::all() {
        assert!(
            seen.insert(row.name.clone()),
            "two rows are named {}",
            row.name
        );
    }
}

#[test]
fn shape_rules_refuse_bad_operands_by_name() {
    for row in rows::all() {
        for (shapes, expected) in &row.refuses {
            let b = Builder::new();
            let args = inputs(&b, shapes);
            let _scope = b.scope(SCOPE);
            let place = format!("{} on {shapes:?}", row.name);
            let error = match (row.build)(&b, DType::F32, &args) {
                Ok(_) => panic!("{place}: not refused"),
                Err(error) => error.to_string(),
            };
            for part in [*expected, SCOPE] {
                assert!(
                    error.contains(part),
                    "{place}: '{part}' is not in '{error}'"
                );
            }
        }
    }
}

#[test]
fn ops_without_derivative_say_so_and_where() {
    for row in rows::all() {
        let Gradient::Refused(expected) = row.gradient else {
            continue;
        };
        let b = Builder::new();
        let args = inputs(&b, &row.shapes(DType::F32));
        let scope = b.scope(SCOPE);
        let results = (row.build)(&b, DType::F32, &args).unwrap();
        drop(scope);
        let seeds: Vec<_> = results
            .iter()
            .filter(|v| v.dtype().is_float())
            .map(|v| (*v, *v))
            .collect();
        let error = match cotangents(&b, &seeds, &args) {
            Ok(_) => panic!("{}: not refused", row.name),
            Err(error) => error.to_string(),
        };
        for part in ["has no derivative", expected, SCOPE] {
            assert!(
                error.contains(part),
                "{}: '{part}' is not in '{error}'",
                row.name
            );
        }
    }
}

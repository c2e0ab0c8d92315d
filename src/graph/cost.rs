//! Floating-point operations and bytes, counted from the graph.
//!
//! These are facts about the program as written, before any compiler: an
//! addition and a multiplication count one each, so a matrix product of
//! `m x k` and `k x n` counts `2mkn`.

use std::collections::BTreeMap;

use super::ops::Operation;
use super::{Graph, Node, Shape};

/// What a scope costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Operations of all ops.
    pub flops: u64,
    /// Operations of matrix products and convolutions alone.
    pub matmul_flops: u64,
    /// Bytes of all operands and results, as if nothing were fused.
    pub bytes: u64,
}

fn shapes(node: &Node) -> (Vec<Shape>, Vec<Shape>) {
    let shapes = |values: &[super::Value]| values.iter().map(|v| v.shape).collect();
    (shapes(&node.operands), shapes(&node.results))
}

/// All operations of a function.
pub fn flops(graph: &Graph) -> u64 {
    graph
        .nodes()
        .iter()
        .map(|node| {
            let (operands, results) = shapes(node);
            node.op.flops(&operands, &results)
        })
        .sum()
}

/// Operations of matrix products and convolutions, those inside of blocks
/// included: what FLOP counts of papers mean (halve it for multiply-adds).
pub fn matmul_flops(graph: &Graph) -> u64 {
    graph.nodes().iter().map(node_matmul_flops).sum()
}

fn node_matmul_flops(node: &Node) -> u64 {
    use super::ops::Op;
    let (operands, results) = shapes(node);
    match &node.op {
        Op::DotGeneral(op) => op.flops(&operands, &results),
        Op::Convolution(op) => op.flops(&operands, &results),
        Op::Scan(op) => op.length as u64 * matmul_flops(&op.body),
        Op::ScanBlock(op) => op.length as u64 * matmul_flops(&op.body),
        op => op.regions().into_iter().map(matmul_flops).sum(),
    }
}

/// The cost of each scope path, to `depth` parts of it.
pub fn by_scope(graph: &Graph, depth: usize) -> BTreeMap<String, Cost> {
    let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
    for node in graph.nodes() {
        let path: Vec<&str> = graph.scope(node).split('/').take(depth).collect();
        let (operands, results) = shapes(node);
        let cost = costs.entry(path.join("/")).or_default();
        cost.flops += node.op.flops(&operands, &results);
        cost.matmul_flops += node_matmul_flops(node);
        cost.bytes += operands
            .iter()
            .chain(&results)
            .map(|s| s.bytes() as u64)
            .sum::<u64>();
    }
    costs
}

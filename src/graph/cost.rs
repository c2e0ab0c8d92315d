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
    use super::ops::{Op, attention};
    let (operands, results) = shapes(node);
    match &node.op {
        Op::DotGeneral(op) => op.flops(&operands, &results),
        Op::Convolution(op) => op.flops(&operands, &results),
        Op::Attention(_) => attention::products(&operands, 2),
        Op::AttentionGrad(_) => attention::products(&operands, 5),
        op => op.turns() * op.regions().into_iter().map(matmul_flops).sum::<u64>(),
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.flops += other.flops;
        self.matmul_flops += other.matmul_flops;
        self.bytes += other.bytes;
    }
}

/// The cost of one node.
pub fn of(node: &Node) -> Cost {
    let (operands, results) = shapes(node);
    Cost {
        flops: node.op.flops(&operands, &results),
        matmul_flops: node_matmul_flops(node),
        bytes: operands
            .iter()
            .chain(&results)
            .map(|s| s.bytes() as u64)
            .sum(),
    }
}

/// The cost of each scope path, to `depth` parts of it.
pub fn by_scope(graph: &Graph, depth: usize) -> BTreeMap<String, Cost> {
    let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
    for node in graph.nodes() {
        let path: Vec<&str> = graph.scope(node).split('/').take(depth).collect();
        *costs.entry(path.join("/")).or_default() += of(node);
    }
    costs
}

/// Three digits with a decimal prefix: `4.61 GFLOP`.
pub fn amount(value: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P"];
    let mut value = value;
    let mut step = 0;
    while value >= 999.5 && step + 1 < prefixes.len() {
        value /= 1000.0;
        step += 1;
    }
    let digits = match value {
        _ if step == 0 || value >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {}{unit}", prefixes[step])
}

#[cfg(test)]
mod tests {
    use super::super::ops::{ConvDims, Convolution};
    use super::super::vjp::gradients;
    use super::super::{Builder, DType, Value};
    use super::*;

    fn input(b: &Builder, dims: &[usize]) -> Value {
        b.input("x", Shape::new(DType::F32, dims))
    }

    /// A training step costs three times its forward pass: each of the two
    /// gradients of a product costs as much as the product.
    #[test]
    fn gradients_of_products_cost_twice_the_products() {
        let b = Builder::new();
        let (x, w) = (input(&b, &[5, 3]), input(&b, &[3, 4]));
        let y = b.dot(x, w, &[1], &[0]).unwrap();
        let loss = b.sum_all(y).unwrap();
        b.output("y", y);
        for g in gradients(&b, loss, &[x, w]).unwrap() {
            b.output("g", g);
        }
        assert_eq!(matmul_flops(&b.finish().unwrap()), 3 * 2 * 5 * 3 * 4);
    }

    /// The patch embedding of a ViT-B: one product of 16 x 16 x 3 numbers
    /// for each of 768 features of each of 14 x 14 patches. Stride and
    /// window being equal, its gradients cost the same.
    #[test]
    fn convolutions_and_their_gradients_count_what_is_multiplied() {
        let b = Builder::new();
        let (x, w) = (input(&b, &[2, 224, 224, 3]), input(&b, &[16, 16, 3, 768]));
        let op = Convolution {
            strides: vec![16, 16],
            ..Convolution::new(ConvDims::nhwc())
        };
        let y = b.convolution(op, x, w).unwrap();
        let loss = b.sum_all(y).unwrap();
        b.output("y", y);
        for g in gradients(&b, loss, &[x, w]).unwrap() {
            b.output("g", g);
        }
        let forward = 2 * (2 * 14 * 14 * 768) * (16 * 16 * 3);
        assert_eq!(matmul_flops(&b.finish().unwrap()), 3 * forward);
    }

    #[test]
    fn scopes_add_up_to_the_whole() {
        let b = Builder::new();
        let x = input(&b, &[4, 4]);
        let inner = |name: &str, x: Value| {
            let _scope = b.scope(name);
            let _deeper = b.scope("mlp");
            b.dot(x, x, &[1], &[0]).unwrap()
        };
        let y = inner("blocks.1", inner("blocks.0", x));
        b.output("y", b.add(y, y).unwrap());
        let graph = b.finish().unwrap();
        let costs = by_scope(&graph, 1);
        let paths: Vec<&str> = costs.keys().map(String::as_str).collect();
        assert_eq!(paths, ["", "blocks.0", "blocks.1"]);
        assert_eq!(costs["blocks.0"].matmul_flops, 2 * 4 * 4 * 4);
        assert_eq!(costs["blocks.0"].bytes, 3 * 4 * 16);
        assert_eq!(costs.values().map(|c| c.flops).sum::<u64>(), flops(&graph));
    }

    #[test]
    fn amounts_keep_three_digits() {
        let check = |value: f64, expected: &str| assert_eq!(amount(value, "B"), expected);
        check(0.0, "0 B");
        check(999.0, "999 B");
        check(999.9, "1.00 kB");
        check(1234.0, "1.23 kB");
        check(99_960.0, "100 kB");
        check(4.6e9, "4.60 GB");
    }
}

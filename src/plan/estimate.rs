//! Our own estimates of a step's time. They are bounds from data sheets,
//! beside what a compiler says, and never instead of it.

use std::collections::BTreeMap;

use super::collectives::Total;
use super::hardware::Hardware;
use crate::graph::ops::{Op, Operation};
use crate::graph::{DType, Graph, Shape, cost};

/// What the matrix products of a program do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Products {
    pub bf16_flops: u64,
    pub f32_flops: u64,
    /// Of their operands and results: what no fusion of other ops avoids.
    pub bytes: u64,
}

/// All matrix products of a function, those of its blocks and loops included.
pub(super) fn products(graph: &Graph) -> Products {
    let mut all = Products::default();
    for node in graph.nodes() {
        let turns = node.op.turns();
        for body in node.op.regions() {
            let body = products(body);
            all.bf16_flops += turns * body.bf16_flops;
            all.f32_flops += turns * body.f32_flops;
            all.bytes += turns * body.bytes;
        }
        let multiplies = matches!(
            node.op,
            Op::DotGeneral(_) | Op::Convolution(_) | Op::Attention(_) | Op::AttentionGrad(_)
        );
        if multiplies {
            let cost = cost::of(node);
            match node.operands[0].dtype() {
                DType::BF16 => all.bf16_flops += cost.matmul_flops,
                _ => all.f32_flops += cost.matmul_flops,
            }
            all.bytes += cost.bytes;
        }
    }
    all
}

/// Whether the program has a loop in it, which compilers count once.
pub(super) fn has_loop(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| match &node.op {
        Op::While(_) | Op::Scan(_) | Op::ScanBlock(_) | Op::MapChunks(_) => true,
        op => op.regions().into_iter().any(has_loop),
    })
}

/// Bytes of arguments and results, each touched once.
pub(super) fn boundary(graph: &Graph) -> u64 {
    let bytes = |shapes: Vec<Shape>| shapes.iter().map(|s| s.bytes() as u64).sum::<u64>();
    bytes(graph.input_shapes()) + bytes(graph.output_shapes())
}

/// Seconds that one device needs at least for `share`, its own part of the
/// program: products at the peak rate, or moving what must be moved,
/// whichever takes longer.
pub(super) fn roofline(hardware: &Hardware, share: &Graph) -> f64 {
    let products = products(share);
    let compute = products.bf16_flops as f64 / hardware.bf16_flops
        + products.f32_flops as f64 / hardware.f32_flops;
    let bytes = products.bytes + boundary(share);
    compute.max(bytes as f64 / hardware.memory_bandwidth)
}

/// Seconds on the network: each collective as a ring over all of a device's
/// links, one after the other, nothing of it hidden behind compute, and
/// without latency. An all-reduce sends a device's vector twice around, the
/// other kinds once. None where devices share their memory.
pub(super) fn network(
    hardware: &Hardware,
    devices: usize,
    collectives: &BTreeMap<String, Total>,
) -> Option<f64> {
    let bandwidth = hardware.network_bandwidth?;
    let round = (devices.saturating_sub(1)) as f64 / devices.max(1) as f64;
    let seconds = collectives.iter().map(|(kind, total)| {
        let rounds = if kind == "all-reduce" { 2.0 } else { 1.0 };
        rounds * round * total.bytes as f64 / bandwidth
    });
    Some(seconds.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;

    const HARDWARE: Hardware = Hardware {
        bf16_flops: 1e6,
        f32_flops: 1e5,
        memory: 1 << 30,
        memory_bandwidth: 1e3,
        network_bandwidth: Some(100.0),
    };

    fn product(dtype: DType, n: usize) -> Graph {
        let b = Builder::new();
        let x = b.input("x", Shape::new(dtype, &[n, n]));
        b.output("y", b.dot(x, x, &[1], &[0]).unwrap());
        b.finish().unwrap()
    }

    /// 2 n^3 operations, 3 n^2 numbers for the product, 2 n^2 at the door.
    #[test]
    fn the_slower_of_compute_and_memory_counts() {
        let (n, small) = (1000.0f64, 10.0f64);
        let compute = 2.0 * n.powi(3) / 1e6;
        assert_eq!(
            roofline(&HARDWARE, &product(DType::BF16, 1000)),
            compute.max(5.0 * n * n * 2.0 / 1e3)
        );
        assert_eq!(
            roofline(&HARDWARE, &product(DType::BF16, 10)),
            5.0 * small * small * 2.0 / 1e3
        );
        assert_eq!(products(&product(DType::F32, 10)).f32_flops, 2000);
    }

    #[test]
    fn rings_send_an_all_reduce_twice_around() {
        let one =
            |kind: &str, bytes| BTreeMap::from([(kind.to_owned(), Total { count: 1, bytes })]);
        assert_eq!(network(&HARDWARE, 4, &one("all-reduce", 1000)), Some(15.0));
        assert_eq!(network(&HARDWARE, 4, &one("all-gather", 1000)), Some(7.5));
        assert_eq!(network(&HARDWARE, 1, &one("all-reduce", 1000)), Some(0.0));
        let shared = Hardware {
            network_bandwidth: None,
            ..HARDWARE
        };
        assert_eq!(network(&shared, 4, &one("all-reduce", 1000)), None);
    }
}

//! The biggest arrays of a program: of its HLO as it runs, or of the program as
//! it was written, where a compiler refused without a list of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::graph::ops::Operation;

use super::hlo::{Instruction, any_block, instructions};

/// Arrays of the same type from the same place of each block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    /// Bytes of one of them on a device.
    pub bytes: u64,
    pub count: usize,
    /// Such as `bf16[32,197,3072]`.
    pub shape: String,
    /// Such as `base_encoder/blocks.*/mlp/fc1/dot_general`.
    pub scope: String,
}

/// The `most` biggest results of instructions in HLO text as it runs, without
/// padding. They need not live at the same time.
pub(super) fn biggest(hlo: &str, most: usize) -> Vec<Buffers> {
    let fused = fused(hlo);
    let mut groups: BTreeMap<(u64, String, String), usize> = BTreeMap::new();
    let mut inside = "";
    for line in hlo.lines() {
        if let Some(name) = computation(line) {
            inside = name;
            continue;
        }
        if fused.contains(inside) {
            continue;
        }
        for instruction in instructions(line).filter(holds_memory) {
            let scope = any_block(instruction.scope());
            for array in &instruction.arrays {
                let group = (array.bytes, array.kind.to_owned(), scope.clone());
                *groups.entry(group).or_default() += 1;
            }
        }
    }
    ranked(groups, most)
}

/// The `most` biggest results of a graph's nodes, without those that a compiler
/// hardly keeps: views of others, and constants. They need not live at the same
/// time.
pub(super) fn biggest_written(graph: &Graph, most: usize) -> Vec<Buffers> {
    const KEPT_BY_NOBODY: [&str; 7] = [
        "broadcast_in_dim",
        "constant",
        "convert",
        "iota",
        "reshape",
        "stop_gradient",
        "transpose",
    ];
    let mut groups: BTreeMap<(u64, String, String), usize> = BTreeMap::new();
    let nodes = graph.nodes().iter();
    for node in nodes.filter(|node| !KEPT_BY_NOBODY.contains(&node.op.name())) {
        let scope = any_block(graph.scope(node));
        for result in &node.results {
            let dims: Vec<String> = result.dims().iter().map(usize::to_string).collect();
            let shape = format!("{}[{}]", result.dtype(), dims.join(","));
            let group = (result.shape.bytes() as u64, shape, scope.clone());
            *groups.entry(group).or_default() += 1;
        }
    }
    ranked(groups, most)
}

fn ranked(groups: BTreeMap<(u64, String, String), usize>, most: usize) -> Vec<Buffers> {
    let buffers = groups.into_iter().rev().take(most);
    buffers
        .map(|((bytes, shape, scope), count)| Buffers {
            bytes,
            count,
            shape,
            scope,
        })
        .collect()
}

/// The name that a computation's first line gives it.
fn computation(line: &str) -> Option<&str> {
    let header = line.strip_suffix('{')?;
    let header = header.strip_prefix("ENTRY ").unwrap_or(header);
    let (name, _) = header.split_once(" (")?;
    Some(name.trim_start_matches('%'))
}

/// Computations whose values never reach memory.
fn fused(hlo: &str) -> BTreeSet<&str> {
    let called = |line| {
        let (_, after): (&str, &str) = str::split_once(line, "calls=%")?;
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c));
        Some(&after[..end.unwrap_or(after.len())])
    };
    hlo.lines().filter_map(called).collect()
}

fn holds_memory(instruction: &Instruction) -> bool {
    let names_others = [
        "parameter",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "optimization-barrier",
        "opt-barrier",
    ];
    let op = instruction.opcode;
    // The second half of an asynchronous op names the first one's result.
    !names_others.contains(&op) && !op.ends_with("-start") && instruction.bytes() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HLO: &str = r#"HloModule m

%fused_computation.1 (p: f32[64]) -> f32[64] {
  ROOT %big = f32[1000000]{0} broadcast(%p), dimensions={}
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %p = f32[4096]{0} parameter(0)
  %a = bf16[2,8]{1,0:T(8,128)(2,1)} fusion(%p), kind=kLoop, calls=%fused_computation.1, metadata={op_name="e/blocks.0/mlp/dot"}
  %b = bf16[2,8]{1,0} fusion(%p), kind=kLoop, calls=%fused_computation.1, metadata={op_name="e/blocks.1/mlp/dot"}
  %c = (f32[64]{0}, f32[2]{0}) fusion(%p), kind=kLoop, calls=%fused_computation.1, metadata={op_name="loss/add"}
  ROOT %t = (f32[64]{0}) tuple(%c)
}
"#;

    #[test]
    fn what_reaches_memory_is_listed_largest_first() {
        let buffers = |bytes, count, shape: &str, scope: &str| Buffers {
            bytes,
            count,
            shape: shape.into(),
            scope: scope.into(),
        };
        assert_eq!(
            biggest(HLO, 9),
            [
                buffers(256, 1, "f32[64]", "loss/add"),
                buffers(32, 2, "bf16[2,8]", "e/blocks.*/mlp/dot"),
                buffers(8, 1, "f32[2]", "loss/add"),
            ]
        );
        assert_eq!(biggest(HLO, 1).len(), 1);
        assert_eq!(biggest("no HLO {", 9), []);
    }

    #[test]
    fn of_a_program_as_written_what_is_kept_is_listed() {
        use crate::graph::{Builder, DType, Shape};
        let b = Builder::new();
        let x = b.input("x", Shape::new(DType::F32, &[4, 8]));
        let wide = {
            let _scope = b.scope("blocks.7");
            let wide = b.dot(x, x, &[1], &[1]).unwrap();
            let tall = b.concatenate(&[x, x, x], 0).unwrap();
            // A view needs nothing.
            b.output("tall", b.reshape(tall, &[96]).unwrap());
            b.exp(wide).unwrap()
        };
        b.output("wide", wide);
        let found = biggest_written(&b.finish().unwrap(), 2);
        let of = |bytes, count, shape: &str| Buffers {
            bytes,
            count,
            shape: shape.into(),
            scope: "blocks.*".into(),
        };
        assert_eq!(found, [of(384, 1, "f32[12,8]"), of(64, 2, "f32[4,4]")]);
    }
}

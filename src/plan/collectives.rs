//! The collectives in a partitioned program's HLO text: which, how often, how
//! many bytes, and for what.
//!
//! Two texts tell different things. Right after partitioning each collective
//! still has the scope of the op that needs it ([`Collective::scope`]). As the
//! program runs, they have been combined into few, under one name each: that
//! text says what goes over the network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hlo::{Instruction, any_block, instructions};

/// Kinds of collectives, by their HLO names.
const KINDS: [&str; 6] = [
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
];

/// A collective of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collective {
    /// Such as `all-reduce`.
    pub kind: &'static str,
    /// Number of arrays that it moves: more than one where XLA combined them.
    pub arrays: usize,
    /// Bytes of a device's whole vector: of the result, and of the operand
    /// for a `reduce-scatter`.
    pub bytes: u64,
    /// Where in the model it belongs, such as
    /// `base_encoder/head/1/reduce`; empty where XLA kept no name.
    pub scope: String,
}

/// How much of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    pub count: usize,
    pub bytes: u64,
}

/// The collectives in HLO text, in its order. One in the body of a loop stands
/// once, however often the loop turns.
pub fn collectives(hlo: &str) -> Vec<Collective> {
    instructions(hlo).filter_map(|i| collective(&i)).collect()
}

/// Sums for each kind.
pub fn by_kind(collectives: &[Collective]) -> BTreeMap<&'static str, Total> {
    let mut totals: BTreeMap<&'static str, Total> = BTreeMap::new();
    for collective in collectives {
        let total = totals.entry(collective.kind).or_default();
        total.count += 1;
        total.bytes += collective.bytes;
    }
    totals
}

/// Collectives of one kind for the same place of each block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub kind: String,
    /// Such as `grad/base_encoder/blocks.*/mlp/fc1/dot_general`.
    pub scope: String,
    #[serde(flatten)]
    pub total: Total,
}

/// Sums for each kind and place, the most bytes first.
pub fn by_place(collectives: &[Collective]) -> Vec<Place> {
    let mut totals: BTreeMap<(&'static str, String), Total> = BTreeMap::new();
    for collective in collectives {
        let key = (collective.kind, any_block(&collective.scope));
        let total = totals.entry(key).or_default();
        total.count += 1;
        total.bytes += collective.bytes;
    }
    let mut places: Vec<Place> = totals
        .into_iter()
        .map(|((kind, scope), total)| Place {
            kind: kind.to_owned(),
            scope,
            total,
        })
        .collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.total.bytes));
    places
}

fn collective(instruction: &Instruction) -> Option<Collective> {
    // An asynchronous one is a pair, of which the first half says it all; a
    // TPU's fused reduce-scatter is a computation of that name, which holds
    // the all-reduce that it stands for.
    let (name, starts) = match instruction.opcode.strip_suffix("-start") {
        Some(name) => (name, true),
        None => (instruction.opcode, false),
    };
    let kind = KINDS.into_iter().find(|kind| *kind == name)?;
    let arrays = instruction.arrays.iter();
    let mut results: Vec<u64> = arrays.map(|array| array.bytes).collect();
    match (kind, starts) {
        // (operands, results)
        ("all-gather", true) => drop(results.drain(..results.len() / 2)),
        // (operand, result, two scalars of context)
        ("collective-permute", true) => results = vec![*results.get(1)?],
        _ => {}
    }
    let bytes: u64 = results.iter().sum();
    let group = match kind {
        "reduce-scatter" => instruction.group_size().unwrap_or(1),
        _ => 1,
    };
    Some(Collective {
        kind,
        arrays: results.len(),
        bytes: bytes * group,
        scope: instruction.scope().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as the CPU and TPU compilers print them.
    const HLO: &str = r#"HloModule train_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main (p: f32[2,8]) -> f32[8] {
  %p = f32[2,8]{1,0} parameter(0), sharding={devices=[4,1]<=[4]}
  %all-reduce.1 = f32[8]{0} all-reduce(%r), channel_id=1, replica_groups=[1,4]<=[4], use_global_device_ids=true, to_apply=%add, metadata={op_name="base_encoder/head/1/reduce" source_file="-" source_line=3}
  %all-reduce.2 = (f32[8]{0:T(256)}, /*index=1*/bf16[2,8]{1,0:T(8,128)(2,1)}) all-reduce(%a, %b), replica_groups={{0,1,2,3}}, to_apply=%add
  %ag = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%k), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}, metadata={op_name="loss/dot_general"}
  %agd = bf16[8,8]{1,0} all-gather-done(%ag), metadata={op_name="loss/dot_general"}
  %rs = f32[4]{0} reduce-scatter(%g), channel_id=4, replica_groups={{0,1},{2,3}}, dimensions={0}, to_apply=%add
  %cp = (f32[3]{0}, f32[3]{0}, u32[], u32[]) collective-permute-start(%h), source_target_pairs={{0,1}}
  ROOT %f = f32[8]{0} fusion(%all-reduce.1), kind=kLoop, calls=%fused
}
"#;

    #[test]
    fn finds_each_kind_with_its_bytes_and_scope() {
        let found = collectives(HLO);
        let facts: Vec<_> = found
            .iter()
            .map(|c| (c.kind, c.arrays, c.bytes, c.scope.as_str()))
            .collect();
        assert_eq!(
            facts,
            [
                ("all-reduce", 1, 32, "base_encoder/head/1/reduce"),
                ("all-reduce", 2, 32 + 32, ""),
                ("all-gather", 1, 128, "loss/dot_general"),
                ("reduce-scatter", 1, 32, ""),
                ("collective-permute", 1, 12, ""),
            ]
        );
        let totals = by_kind(&found);
        assert_eq!(
            totals["all-reduce"],
            Total {
                count: 2,
                bytes: 96
            }
        );
        assert_eq!(totals.len(), 4);
    }

    #[test]
    fn places_are_the_same_in_each_block() {
        let of_block = |block: usize, bytes| Collective {
            kind: "all-reduce",
            arrays: 1,
            bytes,
            scope: format!("grad/blocks.{block}/mlp/dot"),
        };
        let places = by_place(&[of_block(0, 8), of_block(11, 8)]);
        assert_eq!(
            places,
            [Place {
                kind: "all-reduce".into(),
                scope: "grad/blocks.*/mlp/dot".into(),
                total: Total {
                    count: 2,
                    bytes: 16
                },
            }]
        );
    }

    #[test]
    fn text_that_is_no_hlo_has_none() {
        for text in ["", "all-reduce(", "%x = f32[8 all-reduce(%y)", "%x = "] {
            assert_eq!(collectives(text), [], "{text:?}");
        }
    }
}

//! HLO text, as far as we read it: an instruction's name, the sizes of its
//! results, what it does, and the scope it came from.

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction<'a> {
    pub name: &'a str,
    /// Those of its result: several where that is a tuple.
    pub arrays: Vec<Array<'a>>,
    /// Such as `all-reduce`.
    pub opcode: &'a str,
    /// Operands and attributes.
    rest: &'a str,
}

/// An array's type, without its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Array<'a> {
    /// Such as `bf16[2,8]`.
    pub kind: &'a str,
    /// Without the padding of layouts.
    pub bytes: u64,
}

/// The instructions of all computations in a text, in its order. What is
/// none is skipped.
pub(super) fn instructions(hlo: &str) -> impl Iterator<Item = Instruction<'_>> {
    hlo.lines().filter_map(instruction)
}

fn instruction(line: &str) -> Option<Instruction<'_>> {
    let line = line.trim_start();
    let line = line.strip_prefix("ROOT ").unwrap_or(line);
    let (name, value) = line.split_once(" = ")?;
    let name = name.strip_prefix('%').unwrap_or(name);
    let end = end_of_type(value)?;
    let (kind, rest) = value.split_at(end);
    let (opcode, rest) = rest.trim_start().split_once('(')?;
    let is_opcode = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!opcode.is_empty() && opcode.chars().all(is_opcode)).then_some(())?;
    Some(Instruction {
        name,
        arrays: arrays(kind)?,
        opcode,
        rest,
    })
}

/// A type ends at the first space outside of all brackets.
fn end_of_type(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.checked_sub(1)?,
            ' ' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// The arrays in a type: `bf16[2,8]{1,0}` and tuples of such.
fn arrays(kind: &str) -> Option<Vec<Array<'_>>> {
    let mut found = Vec::new();
    let mut rest = kind;
    while let Some((before, after)) = rest.split_once('[') {
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |at| at + 1);
        let (dims, after) = after.split_once(']')?;
        let mut bits = bits(&before[start..])?;
        for dim in dims.split(',').filter(|dim| !dim.is_empty()) {
            // Bounded dynamic sizes are written `<=8`.
            let dim: u64 = dim.trim_start_matches("<=").parse().ok()?;
            bits = bits.checked_mul(dim)?;
        }
        let end = before.len() + dims.len() + 2;
        found.push(Array {
            kind: &rest[start..end],
            bytes: bits.div_ceil(8),
        });
        // A layout may hold brackets of its own kinds, but no square ones.
        rest = after;
    }
    Some(found)
}

fn bits(element: &str) -> Option<u64> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|bits| *bits <= 128);
    match element {
        "pred" => Some(8),
        "token" | "opaque" => Some(0),
        "bf16" => Some(16),
        _ if element.starts_with("f8") => Some(8),
        _ => match element.split_at_checked(1)? {
            ("f" | "s" | "u" | "c", size) => number(size),
            _ => None,
        },
    }
}

impl<'a> Instruction<'a> {
    /// Bytes of the whole result.
    pub fn bytes(&self) -> u64 {
        self.arrays.iter().map(|array| array.bytes).sum()
    }

    /// The `op_name` that came with the program: the scope path and the op.
    pub fn scope(&self) -> &'a str {
        let after = self.rest.split_once("op_name=\"");
        after
            .and_then(|(_, text)| text.split_once('"'))
            .map_or("", |(scope, _)| scope)
    }

    /// Devices that take part together: `replica_groups={{0,1},{2,3}}` or
    /// `replica_groups=[2,2]<=[4]`.
    pub fn group_size(&self) -> Option<u64> {
        let (_, text) = self.rest.split_once("replica_groups=")?;
        if let Some(list) = text.strip_prefix("{{") {
            let (first, _) = list.split_once('}')?;
            return Some(first.split(',').count() as u64);
        }
        let (dims, _) = text.strip_prefix('[')?.split_once(']')?;
        dims.split(',').next_back()?.parse().ok()
    }
}

/// `base_encoder/blocks.3/mlp` as `base_encoder/blocks.*/mlp`.
pub(super) fn any_block(scope: &str) -> String {
    let parts = scope.split('/').map(|part| match part.split_once('.') {
        Some((name, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => format!("{name}.*"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_types_opcodes_and_scopes() {
        let text = r#"  ROOT %fusion.7 = (bf16[16,197,3072]{2,1,0:T(8,128)(2,1)S(1)}, s32[], pred[3]{0}) fusion(%a, %b), kind=kOutput, calls=%c, metadata={op_name="base_encoder/blocks.0/mlp/dot"}"#;
        let found = instruction(text).unwrap();
        assert_eq!((found.name, found.opcode), ("fusion.7", "fusion"));
        let arrays = [
            ("bf16[16,197,3072]", 16 * 197 * 3072 * 2),
            ("s32[]", 4),
            ("pred[3]", 3),
        ];
        assert_eq!(
            found.arrays,
            arrays.map(|(kind, bytes)| Array { kind, bytes })
        );
        assert_eq!(found.scope(), "base_encoder/blocks.0/mlp/dot");
        assert_eq!(found.bytes(), 16 * 197 * 3072 * 2 + 7);
        assert_eq!(found.group_size(), None);
    }

    #[test]
    fn other_lines_are_skipped() {
        for line in [
            "HloModule main, entry_computation_layout={(f32[2]{0})->f32[2]{0}}",
            "ENTRY %main (p: f32[2]) -> f32[2] {",
            "}",
            "%x = f32[99999999999,99999999999] add(%a, %b)",
            "%x = quaternion[2] add(%a, %b)",
            "%x = f32[2]) add(%a, %b)",
        ] {
            assert_eq!(instruction(line), None, "{line}");
        }
    }
}

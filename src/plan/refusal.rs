//! A TPU compiler's refusal of a program that does not fit, as far as we read
//! it: what it needs, what there is, and its largest allocations.

use super::buffers::Buffers;
use super::hlo::any_block;

/// What a refusal says. All of it may be missing from other compilers' words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Refusal {
    pub used_bytes: Option<u64>,
    pub capacity_bytes: Option<u64>,
    pub largest: Vec<Buffers>,
}

/// Reads lines such as
///
/// ```text
/// Used 16.38G of 15.48G hbm. Exceeded hbm capacity by 922.52M.
///   1. Size: 1.50G
///      Operator: op_name="base_encoder/blocks.3/mlp/fc1/dot_general"
///      Shape: bf16[32,257,5120]{2,1,0:T(8,128)(2,1)}
/// ```
pub(super) fn read(message: &str) -> Refusal {
    let mut refusal = Refusal::default();
    for line in message.lines().map(str::trim) {
        if let Some((_, after)) = line.split_once("Used ") {
            let mut words = after.split(' ');
            let (used, of, capacity) = (words.next(), words.next(), words.next());
            if of == Some("of") {
                refusal.used_bytes = used.and_then(size);
                refusal.capacity_bytes = capacity.and_then(size);
            }
        }
        if let Some((needed, there)) = in_words(line) {
            refusal.used_bytes = size(needed);
            refusal.capacity_bytes = size(there);
        }
        if let Some(bytes) = entry(line) {
            refusal.largest.push(Buffers {
                bytes,
                count: 1,
                shape: String::new(),
                scope: String::new(),
            });
        }
        let Some(last) = refusal.largest.last_mut() else {
            continue;
        };
        if let Some((_, name)) = line.split_once("op_name=\"") {
            last.scope = any_block(name.split('"').next().unwrap_or_default());
        }
        if let Some(shape) = line.strip_prefix("Shape: ") {
            last.shape = shape.split('{').next().unwrap_or_default().to_owned();
        }
    }
    refusal
}

/// The sizes of "the total memory required for HLO temporaries (46.06G) exceeds
/// available HBM (15.48G)", which is said without a list.
fn in_words(line: &str) -> Option<(&str, &str)> {
    let (_, after) = line.split_once("memory required for ")?;
    let (needed, after) = after
        .split_once('(')?
        .1
        .split_once(") exceeds available ")?;
    let there = after.split_once('(')?.1.split_once(')')?.0;
    Some((needed, there))
}

/// The bytes of `3. Size: 1.50G`.
fn entry(line: &str) -> Option<u64> {
    let (number, text) = line.split_once(". Size: ")?;
    number.parse::<u32>().ok()?;
    size(text)
}

/// `16.38G`, in binary units.
fn size(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['.', ',']);
    let unit = text.chars().last()?;
    let power = "BKMGT".find(unit)? as i32;
    let number: f64 = text[..text.len() - 1].parse().ok()?;
    let bytes = number * 1024f64.powi(power);
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_the_largest_allocations_are_read() {
        let message = r#"PJRT_Compile: the plugin reports ResourceExhausted: Ran out of memory in memory space hbm. Used 16.50G of 15.48G hbm. Exceeded hbm capacity by 922.52M.

  Largest program allocations in hbm:

  1. Size: 1.50G
     Operator: op_name="grad/base_encoder/blocks.31/mlp/fc1/dot_general" source_line=7
     Shape: bf16[32,257,5120]{2,1,0:T(8,128)(2,1)}
     Unpadded size: 1.49G
     Allocation type: HLO temp

  2. Size: 4.0K
     Allocation type: HLO temp
"#;
        let found = read(message);
        let gib = |n: f64| Some((n * (1u64 << 30) as f64) as u64);
        assert_eq!(found.used_bytes, gib(16.5));
        assert_eq!(found.capacity_bytes, gib(15.48));
        assert_eq!(found.largest.len(), 2);
        assert_eq!(found.largest[0].bytes, 3 << 29);
        assert_eq!(found.largest[0].shape, "bf16[32,257,5120]");
        assert_eq!(
            found.largest[0].scope,
            "grad/base_encoder/blocks.*/mlp/fc1/dot_general"
        );
        assert_eq!(found.largest[1].bytes, 4096);
    }

    #[test]
    fn a_refusal_without_a_list_says_how_much_too() {
        let found = read(
            "ResourceExhausted: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total \
             memory required for HLO temporaries (46.06G) exceeds available HBM (15.48G). HLO \
             module: train_step.",
        );
        let gib = |n: f64| Some((n * (1u64 << 30) as f64) as u64);
        assert_eq!(found.used_bytes, gib(46.06));
        assert_eq!(found.capacity_bytes, gib(15.48));
        assert_eq!(found.largest, []);
    }

    #[test]
    fn other_words_are_no_error() {
        for message in [
            "",
            "out of memory",
            "Used of",
            "Used -1G of x hbm",
            "1. Size: é",
            "memory required for x (1G) exceeds available y",
        ] {
            assert_eq!(read(message), Refusal::default(), "{message}");
        }
    }
}

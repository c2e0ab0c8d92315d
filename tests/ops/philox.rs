//! The generator on the device is the generator of the host, bit by bit.

use xla_moco::graph::philox::{philox, uniform};
use xla_moco::graph::{Builder, DType, Shape, Value};
use xla_moco::rng;

use crate::array::Array;
use crate::run::Program;
use crate::support::on_each_cpu_plugin;

/// Counters and keys: all zeros and all ones, as in Random123's vectors, and
/// others with every word different.
fn cases() -> Vec<([u32; 4], [u32; 2])> {
    let mut cases = vec![([0; 4], [0; 2]), ([u32::MAX; 4], [u32::MAX; 2])];
    for i in 0..30 {
        let mut word = rng::Stream::new(5, rng::Purpose::Test, (i, 0));
        cases.push(([0; 4].map(|_| word.bits()), [0; 2].map(|_| word.bits())));
    }
    cases
}

#[test]
fn device_and_host_draw_the_same_bits() {
    let cases = cases();
    let column = |word: &dyn Fn(&([u32; 4], [u32; 2])) -> u32| {
        Array::new(
            &[cases.len()],
            cases.iter().map(|c| f64::from(word(c))).collect(),
        )
    };
    let b = Builder::new();
    let shape = Shape::new(DType::U32, &[cases.len()]);
    let words: Vec<Value> = (0..6).map(|i| b.input(format!("word{i}"), shape)).collect();
    let counter = [words[0], words[1], words[2], words[3]];
    let bits = philox(&b, counter, [words[4], words[5]]).unwrap();
    for (i, word) in bits.into_iter().enumerate() {
        b.output(format!("bits{i}"), word);
        b.output(format!("uniform{i}"), uniform(&b, word).unwrap());
    }
    let graph = b.finish().unwrap();
    let mut inputs: Vec<Array> = (0..4).map(|i| column(&|c| c.0[i])).collect();
    inputs.extend((0..2).map(|i| column(&|c| c.1[i])));
    on_each_cpu_plugin(1, |plugin, client| {
        let found = Program::new(client, &graph).call(&inputs);
        for (n, (counter, key)) in cases.iter().enumerate() {
            for (i, expected) in rng::philox(*counter, *key).into_iter().enumerate() {
                assert_eq!(
                    found[2 * i].data[n],
                    f64::from(expected),
                    "{plugin}, case {n}"
                );
                let upper = f64::from(expected >> 8) / f64::from(1 << 24);
                assert_eq!(found[2 * i + 1].data[n], upper, "{plugin}, case {n}");
            }
        }
    });
}

//! A batch in chunks gives what the whole batch gives.

use xla_moco::graph::block::{Lowering, apply};
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Graph, Result, Shape, Value};

use crate::array::Array;
use crate::blocks::{LOWERINGS, block, count, values};
use crate::run::Program;
use crate::support::on_each_cpu_plugin;

/// A trunk of three blocks on a batch of 8 rows, as [`crate::blocks`] has it,
/// then a loss that mixes the rows. Outputs: its value and all gradients.
fn trunk(chunks: Option<usize>, lowering: Lowering) -> Graph {
    let b = Builder::new();
    let shape = |dims: &[usize]| Shape::new(DType::F64, dims);
    let params = [shape(&[6, 8]), shape(&[8]), shape(&[8, 6])];
    let x = b.input("x", shape(&[8, 6]));
    let shared: Vec<Value> = (0..9)
        .map(|i| b.input(format!("p{i}"), params[i % 3]))
        .collect();
    let encode = |b: &Builder, x: Value, shared: &[Value]| -> Result<Value> {
        let layers: Vec<Vec<Value>> = shared.chunks(3).map(<[Value]>::to_vec).collect();
        let body = block(x.shape, &params)?;
        Ok(apply(b, "blocks", &body, x, &layers, lowering, true)?.0)
    };
    let y = match chunks {
        None => encode(&b, x, &shared).unwrap(),
        Some(chunks) => {
            let body = |b: &Builder, chunk: &[Value], shared: &[Value]| {
                Ok(vec![encode(b, chunk[0], shared)?])
            };
            b.map_chunks(chunks, &[x], &shared, body).unwrap()[0]
        }
    };
    let scores = b.dot(y, y, &[1], &[1]).unwrap();
    let loss = b.sum_all(b.sine(scores).unwrap()).unwrap();
    b.output("y", y);
    b.output("loss", loss);
    let wrt = [vec![x], shared].concat();
    for (i, gradient) in gradients(&b, loss, &wrt).unwrap().into_iter().enumerate() {
        b.output(format!("gradient{i}"), gradient);
    }
    b.finish().unwrap()
}

#[test]
fn chunks_of_a_trunk_in_every_lowering_agree_with_the_whole() {
    on_each_cpu_plugin(1, |plugin, client| {
        let results = |chunks, lowering| {
            let graph = trunk(chunks, lowering);
            Program::new(client, &graph).call(&values(&graph))
        };
        let expected = results(None, Lowering::Unrolled);
        assert_eq!(expected.len(), 2 + 1 + 9);
        for lowering in LOWERINGS {
            for chunks in [1, 2, 8] {
                let found = results(Some(chunks), lowering);
                for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    for (x, y) in found.data.iter().zip(&expected.data) {
                        assert!(
                            (x - y).abs() < 1e-12 * y.abs().max(1.0),
                            "{plugin}, {lowering:?}, {chunks} chunks: output {k} has {x}, not {y}"
                        );
                    }
                }
            }
        }
    });
}

/// One loop forward; one backward, which computes a chunk again. Neither grows
/// with the number of chunks.
#[test]
fn there_are_two_loops_however_many_chunks() {
    for chunks in [2, 8] {
        let graph = trunk(Some(chunks), Lowering::Unrolled);
        assert_eq!(count(&graph, "stablehlo.while"), 2);
        // Two products a block: forward, again without the last one's, which
        // nobody needs, and two gradients of each. Three of the loss.
        let products = 3 * 2 + (3 * 2 - 1) + 3 * 4 + 3;
        assert_eq!(count(&graph, "stablehlo.dot_general"), products);
    }
}

/// In bf16 a sum of ones stays at 256, since 257 is no number there.
#[test]
fn gradients_of_narrow_values_are_summed_in_f32() {
    let b = Builder::new();
    let x = b.input("x", Shape::new(DType::BF16, &[512, 1]));
    let w = b.input("w", Shape::new(DType::BF16, &[1]));
    let scaled = |b: &Builder, x: &[Value], w: &[Value]| Ok(vec![b.mul(x[0], w[0])?]);
    let y = b.map_chunks(512, &[x], &[w], scaled).unwrap();
    let loss = b.sum_all(y[0]).unwrap();
    b.output("gradient", gradients(&b, loss, &[w]).unwrap()[0]);
    let graph = b.finish().unwrap();
    on_each_cpu_plugin(1, |plugin, client| {
        let ones = [
            Array::from_fn(&[512, 1], |_| 1.0),
            Array::from_fn(&[1], |_| 3.0),
        ];
        let found = Program::new(client, &graph).call(&ones);
        assert_eq!(found[0].data, [512.0], "{plugin}");
    });
}

#[test]
fn a_batch_that_chunks_do_not_divide_is_refused() {
    let b = Builder::new();
    let x = b.input("x", Shape::new(DType::F32, &[8, 2]));
    for chunks in [0, 3, 16] {
        let same = |_: &Builder, x: &[Value], _: &[Value]| Ok(x.to_vec());
        let error = b.map_chunks(chunks, &[x], &[], same).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("{chunks} chunks")), "{error}");
    }
}

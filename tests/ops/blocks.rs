//! The three lowerings of a trunk give the same numbers, each in its way.

use xla_moco::graph::block::{Lowering, apply};
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Graph, Result, Shape, Value, emit};
use xla_moco::rng::{Purpose, Stream};

use crate::array::Array;
use crate::run::Program;
use crate::support::on_each_cpu_plugin;

pub const LOWERINGS: [Lowering; 3] = [Lowering::Unrolled, Lowering::Remat, Lowering::Scan];

/// `x + tanh(x w1 + b1) w2`: a perceptron of two layers with its residual.
pub fn block(x: Shape, params: &[Shape]) -> Result<Graph> {
    let b = Builder::new();
    let x = b.input("x", x);
    let [w1, b1, w2] = [0, 1, 2].map(|i| b.input(format!("p{i}"), params[i]));
    let hidden = {
        let _scope = b.scope("mlp");
        b.tanh(b.add(b.dot(x, w1, &[1], &[0])?, b1)?)?
    };
    b.output("y", b.add(x, b.dot(hidden, w2, &[1], &[0])?)?);
    b.finish()
}

/// A trunk of `layers` blocks: its inputs are x and each block's parameters;
/// its outputs the result, the loss and, if asked for, every gradient.
fn trunk(layers: usize, lowering: Lowering, differentiable: bool) -> Result<Graph> {
    let b = Builder::new();
    let shape = |dims: &[usize]| Shape::new(DType::F64, dims);
    let params = [shape(&[6, 8]), shape(&[8]), shape(&[8, 6])];
    let x = b.input("x", shape(&[4, 6]));
    let layers: Vec<Vec<Value>> = (0..layers)
        .map(|i| {
            let input = |k: usize| b.input(format!("blocks.{i}.p{k}"), params[k]);
            (0..3).map(input).collect()
        })
        .collect();
    let body = block(x.shape, &params)?;
    let y = {
        let _scope = b.scope("base");
        apply(&b, "blocks", &body, x, &layers, lowering, differentiable)?.0
    };
    let loss = b.sum_all(b.mul(y, b.sine(y)?)?)?;
    b.output("y", y);
    b.output("loss", loss);
    if differentiable {
        let wrt = [vec![x], layers.concat()].concat();
        for (i, gradient) in gradients(&b, loss, &wrt)?.into_iter().enumerate() {
            b.output(format!("gradient{i}"), gradient);
        }
    }
    b.finish()
}

pub fn values(graph: &Graph) -> Vec<Array> {
    let draw = |(i, shape): (usize, Shape)| {
        let mut stream = Stream::new(0, Purpose::Test, (77, i as u32));
        Array::from_fn(shape.dims(), |_| stream.range(-0.7, 0.7))
    };
    let shapes = graph.input_shapes();
    shapes.into_iter().enumerate().map(draw).collect()
}

/// How often an op is in the text.
pub fn count(graph: &Graph, op: &str) -> usize {
    let text = emit::stablehlo("test", graph, None);
    text.matches(&format!("\"{op}\"")).count()
}

#[test]
fn lowerings_agree_in_values_and_gradients() {
    on_each_cpu_plugin(1, |plugin, client| {
        let results = |lowering, differentiable| {
            let graph = trunk(3, lowering, differentiable).unwrap();
            let found = Program::new(client, &graph).call(&values(&graph));
            let names = graph.outputs.into_iter().map(|o| o.name);
            names.zip(found).collect::<Vec<_>>()
        };
        let expected = results(Lowering::Unrolled, true);
        assert_eq!(expected.len(), 2 + 1 + 9);
        for (name, array) in &expected {
            assert!(array.data.iter().any(|x| x.abs() > 1e-3), "{name} is zero");
        }
        for lowering in LOWERINGS {
            for differentiable in [false, true] {
                for ((name, found), (_, expected)) in
                    results(lowering, differentiable).iter().zip(&expected)
                {
                    for (x, y) in found.data.iter().zip(&expected.data) {
                        assert!(
                            (x - y).abs() < 1e-13 * y.abs().max(1.0),
                            "{plugin}, {lowering:?}: {name} has {x}, unrolled {y}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn only_the_scan_does_not_grow_with_the_trunk() {
    // Each block has two products, and each product two gradients. Written
    // out once in the loop forward; in the loop backward, which recomputes
    // them, once more and with their gradients.
    let products = |layers, lowering| {
        count(
            &trunk(layers, lowering, true).unwrap(),
            "stablehlo.dot_general",
        )
    };
    for layers in [3, 12] {
        assert_eq!(products(layers, Lowering::Unrolled), layers * (2 + 4));
        // The second product is recomputed by nobody: its result is not needed.
        assert_eq!(products(layers, Lowering::Remat), layers * (2 + 1 + 4));
        assert_eq!(products(layers, Lowering::Scan), 2 + 1 + 4);
    }
    let loops = |lowering| count(&trunk(3, lowering, true).unwrap(), "stablehlo.while");
    assert_eq!(LOWERINGS.map(loops), [0, 0, 2]);
}

#[test]
fn recomputation_stands_behind_a_barrier() {
    let barriers = |lowering| {
        let graph = trunk(3, lowering, true).unwrap();
        count(&graph, "stablehlo.optimization_barrier")
    };
    assert_eq!(LOWERINGS.map(barriers), [0, 3, 1]);
}

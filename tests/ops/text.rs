//! The text that graphs become: held against committed files, equal from
//! build to build, taken by real plugins, with scopes that survive.

use std::path::PathBuf;

use xla_moco::graph::block::{Lowering, apply};
use xla_moco::graph::vjp::gradients;
use xla_moco::graph::{Builder, DType, Graph, Mesh, Shape, Sharding, emit};
use xla_moco::pjrt::{CompileOptions, Program, export_hlo};

use crate::support::on_each_cpu_plugin;

/// A trunk of two blocks and one step of gradient descent on it: arguments
/// that are split, replicated and donated, functions in place, a reduction.
fn small_step(lowering: Lowering) -> Graph {
    let b = Builder::new();
    let weights = Shape::new(DType::F32, &[6, 6]);
    let batch = Shape::new(DType::F32, &[4, 6]);
    let body = {
        let b = Builder::new();
        let (x, w) = (b.input("x", batch), b.input("w", weights));
        let scope = b.scope("mlp");
        b.output("y", b.tanh(b.dot(x, w, &[1], &[0]).unwrap()).unwrap());
        drop(scope);
        b.finish().unwrap()
    };
    let x = b.sharded_input("images", batch, Some(Sharding::split(2, 0)));
    let whole = || Some(Sharding::replicated(2));
    let name = |i: usize| format!("base_encoder.blocks.{i}.weight");
    let params: Vec<_> = (0..2)
        .map(|i| vec![b.sharded_input(name(i), weights, whole())])
        .collect();
    let y = {
        let _scope = b.scope("base_encoder");
        apply(&b, "blocks", &body, x, &params, lowering, true)
            .unwrap()
            .0
    };
    let y = b.constrain(y, &Sharding::split(2, 0)).unwrap();
    let loss = {
        let _scope = b.scope("loss");
        b.sum_all(b.mul(y, y).unwrap()).unwrap()
    };
    b.sharded_output("loss", loss, Some(Sharding::replicated(0)));
    let params = params.concat();
    let found = gradients(&b, loss, &params).unwrap();
    let scope = b.scope("sgd");
    for (i, (w, gradient)) in params.into_iter().zip(found).enumerate() {
        let next = b.sub(w, b.scale(gradient, 0.1).unwrap()).unwrap();
        b.sharded_output(format!("next.{}", name(i)), next, whole());
        b.donate(&name(i), &format!("next.{}", name(i))).unwrap();
    }
    drop(scope);
    b.finish().unwrap()
}

fn text(lowering: Lowering, devices: usize) -> String {
    let mesh = (devices > 1).then(|| Mesh::data(devices));
    emit::stablehlo("small_step", &small_step(lowering), mesh.as_ref())
}

const GOLDEN: [(&str, Lowering, usize); 3] = [
    ("step", Lowering::Unrolled, 1),
    ("step_on_two_devices", Lowering::Unrolled, 2),
    ("step_as_a_loop", Lowering::Scan, 1),
];

/// Set `UPDATE_GOLDEN=1` to write the files anew; then read the difference.
#[test]
fn text_is_as_committed() {
    for (name, lowering, devices) in GOLDEN {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(format!("{name}.mlir"));
        let found = text(lowering, devices);
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_GOLDEN=1 writes it", path.display()));
        for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{}:{}", path.display(), number + 1);
        }
        assert_eq!(found.len(), expected.len(), "{}", path.display());
    }
}

#[test]
fn two_builds_give_the_same_text() {
    for (_, lowering, devices) in GOLDEN {
        assert_eq!(text(lowering, devices), text(lowering, devices));
    }
}

#[test]
fn plugins_take_the_text_and_keep_the_scopes() {
    let expected = [
        (Lowering::Unrolled, 1, "base_encoder/blocks.1/mlp/tanh"),
        (
            Lowering::Unrolled,
            1,
            "grad/base_encoder/blocks.0/mlp/dot_general",
        ),
        (
            Lowering::Unrolled,
            2,
            "base_encoder/blocks.0/mlp/dot_general",
        ),
        (Lowering::Scan, 1, "base_encoder/blocks/mlp/tanh"),
        (Lowering::Scan, 1, "grad/base_encoder/blocks/while"),
    ];
    on_each_cpu_plugin(2, |plugin, client| {
        for (lowering, devices, scope) in expected {
            let text = text(lowering, devices);
            let options = CompileOptions {
                num_partitions: devices,
                ..CompileOptions::default()
            };
            let compile =
                |options: &CompileOptions| client.compile(&Program { text: &text }, options);
            let (_, hlo) = export_hlo(&options, None, compile).unwrap();
            assert!(
                hlo.after_optimizations
                    .contains(&format!("op_name=\"{scope}\"")),
                "{plugin}: {scope} is not in\n{}",
                hlo.after_optimizations
            );
            if devices > 1 {
                assert!(hlo.after_optimizations.contains("all-reduce"), "{plugin}");
            }
        }
    });
}

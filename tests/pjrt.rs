//! The runtime on real plugins: every check on both CPU plugins.

mod support;

use std::sync::Arc;

use support::{f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::pjrt::{Arg, CompileOptions, ElementType, Program};

const ADD: &str = r#"
module {
  func.func public @main(%x: tensor<2x3xf32>, %y: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %z = "stablehlo.add"(%x, %y) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
    "func.return"(%z) : (tensor<2x3xf32>) -> ()
  }
}"#;

#[test]
fn adds_two_arrays() {
    on_each_cpu_plugin(1, |name, client| {
        let program = client
            .compile(&Program { text: ADD }, &CompileOptions::default())
            .unwrap();
        assert_eq!(program.num_outputs(), 1, "{name}");
        let device = &client.devices()[0];
        let array = |values: &[f32]| {
            client
                .buffer_from_host(&f32_bytes(values), ElementType::F32, &[2, 3], device)
                .unwrap()
        };
        let x = array(&[1., 2., 3., 4., 5., 6.]);
        let y = array(&[10., 20., 30., 40., 50., 60.]);
        for _ in 0..2 {
            let run = program
                .execute(vec![vec![Arg::Borrow(&x), Arg::Borrow(&y)]])
                .unwrap();
            run.done[0].wait().unwrap();
            let z = &run.buffers[0][0];
            assert_eq!(z.element_type().unwrap(), ElementType::F32, "{name}");
            assert_eq!(z.dims().unwrap(), [2, 3], "{name}");
            assert_eq!(
                f32_values(&z.to_host().unwrap()),
                [11., 22., 33., 44., 55., 66.],
                "{name}"
            );
        }
    });
}

/// The global mean over a batch that four devices share, and each device's
/// own rows beside it.
const SHARDED: &str = r#"
module attributes {mhlo.num_partitions = 4 : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["data"=4]>
  func.func public @main(%x: tensor<8x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"data"}, {}]>})
      -> (tensor<2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}]>},
          tensor<8x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"data"}, {}]>}) {
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %sum = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0]
        : (tensor<8x2xf32>, tensor<f32>) -> tensor<2xf32>
    %double = stablehlo.add %x, %x : tensor<8x2xf32>
    return %sum, %double : tensor<2xf32>, tensor<8x2xf32>
  }
}"#;

#[test]
fn partitions_over_four_devices() {
    on_each_cpu_plugin(4, |name, client| {
        let options = CompileOptions {
            num_partitions: 4,
            ..CompileOptions::default()
        };
        let program = client
            .compile(&Program { text: SHARDED }, &options)
            .unwrap();
        let ids: Vec<i32> = client.devices().iter().map(|d| d.id()).collect();
        assert_eq!(program.device_ids(), ids, "{name}");
        let arguments = (0..4)
            .map(|d| {
                let rows = [4 * d, 4 * d + 1, 4 * d + 2, 4 * d + 3].map(|i| i as f32);
                let device = &client.devices()[d];
                let shard =
                    client.buffer_from_host(&f32_bytes(&rows), ElementType::F32, &[2, 2], device);
                vec![Arg::Donate(shard.unwrap())]
            })
            .collect();
        let run = program.execute(arguments).unwrap();
        for (d, results) in run.buffers.iter().enumerate() {
            // 0 + 2 + .. + 14 and 1 + 3 + .. + 15: the sum over all shards.
            assert_eq!(
                f32_values(&results[0].to_host().unwrap()),
                [56., 64.],
                "{name}"
            );
            let own = [8 * d, 8 * d + 2, 8 * d + 4, 8 * d + 6].map(|i| i as f32);
            assert_eq!(f32_values(&results[1].to_host().unwrap()), own, "{name}");
        }
    });
}

#[test]
fn takes_bytes_without_copying_and_lets_go() {
    on_each_cpu_plugin(1, |name, client| {
        let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let bytes = Arc::new(f32_bytes(&values));
        let device = &client.devices()[0];
        let x = client
            .buffer_from_host_async(Arc::clone(&bytes), ElementType::F32, &[3, 2], device)
            .unwrap();
        x.ready().unwrap().wait().unwrap();
        let pending = x.to_host_async().unwrap();
        drop(x);
        assert_eq!(f32_values(&pending.wait().unwrap()), values, "{name}");
    });
}

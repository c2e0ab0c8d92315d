//! The runtime on real plugins: every check on both CPU plugins.

mod support;

use std::sync::Arc;

use support::{f32_bytes, f32_values, on_each_cpu_plugin};
use xla_moco::pjrt::{
    Arg, Client, CompileCache, CompileOptions, ElementType, Error, Executable, Origin, Program,
    export_hlo,
};

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

/// x + 1 in place, and the sum of x before that.
const DONATED: &str = r#"
module {
  func.func public @main(%x: tensor<1000xf32> {tf.aliasing_output = 0 : i32})
      -> (tensor<1000xf32>, tensor<f32>) {
    %one = stablehlo.constant dense<1.0> : tensor<1000xf32>
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %y = stablehlo.add %x, %one : tensor<1000xf32>
    %sum = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0]
        : (tensor<1000xf32>, tensor<f32>) -> tensor<f32>
    return %y, %sum : tensor<1000xf32>, tensor<f32>
  }
}"#;

#[test]
fn donates_and_borrows_the_same_parameter() {
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, DONATED);
        let memory = program.memory_stats().unwrap().unwrap();
        assert_eq!(memory.alias_bytes, 4000, "{name}");
        assert_eq!(memory.argument_bytes, 4000, "{name}");
        assert!(memory.output_bytes >= 4004, "{name}: {memory:?}");
        let mut x = upload(client, &[0.5; 1000]);
        for step in 0..3 {
            let run = program.execute(vec![vec![Arg::Donate(x)]]).unwrap();
            let mut results = run.buffers.into_iter().next().unwrap().into_iter();
            x = results.next().unwrap();
            let sum = f32_values(&results.next().unwrap().to_host().unwrap());
            assert_eq!(sum, [500. + 1000. * step as f32], "{name}");
        }
        // Borrowed, it must survive although the program says "reuse".
        let run = program.execute(vec![vec![Arg::Borrow(&x)]]).unwrap();
        assert_eq!(
            f32_values(&run.buffers[0][0].to_host().unwrap()),
            [4.5; 1000],
            "{name}"
        );
        assert_eq!(f32_values(&x.to_host().unwrap()), [3.5; 1000], "{name}");
    });
}

#[test]
fn reads_back_while_more_steps_are_enqueued() {
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, DONATED);
        let mut x = upload(client, &[0.; 1000]);
        let mut pending = Vec::new();
        for _ in 0..20 {
            let run = program.execute(vec![vec![Arg::Donate(x)]]).unwrap();
            let mut results = run.buffers.into_iter().next().unwrap().into_iter();
            x = results.next().unwrap();
            // The scalar's buffer is dropped while its copy runs.
            pending.push(results.next().unwrap().to_host_async().unwrap());
        }
        let last = pending.pop().unwrap();
        assert_eq!(f32_values(&last.wait().unwrap()), [19_000.], "{name}");
        for (step, sum) in pending.into_iter().enumerate() {
            // Some are waited for, some dropped unread.
            if step % 2 == 0 {
                assert_eq!(
                    f32_values(&sum.wait().unwrap()),
                    [1000. * step as f32],
                    "{name}"
                );
            }
        }
    });
}

#[test]
fn multiplies_in_bf16() {
    // 1.5 and -2.25 are exact in bf16; their product -3.375 as well.
    const PRODUCT: &str = r#"
module {
  func.func public @main(%x: tensor<2xbf16>) -> tensor<2xbf16> {
    %y = stablehlo.multiply %x, %x : tensor<2xbf16>
    return %y : tensor<2xbf16>
  }
}"#;
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, PRODUCT);
        let values = [1.5f32, -2.25].map(half::bf16::from_f32);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let device = &client.devices()[0];
        let x = client
            .buffer_from_host(&bytes, ElementType::BF16, &[2], device)
            .unwrap();
        let run = program.execute(vec![vec![Arg::Donate(x)]]).unwrap();
        let y = &run.buffers[0][0];
        assert_eq!(y.element_type().unwrap(), ElementType::BF16, "{name}");
        let bytes = y.to_host().unwrap();
        let squares: Vec<f32> = bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect();
        assert_eq!(squares, [2.25, 5.0625], "{name}");
    });
}

#[test]
fn every_element_type_and_rank_survives_the_way_there_and_back() {
    on_each_cpu_plugin(1, |name, client| {
        let device = &client.devices()[0];
        for element in ElementType::ALL {
            for dims in [&[][..], &[6], &[2, 3], &[3, 1, 2], &[0, 4]] {
                let count: usize = dims.iter().product();
                // Predicates are 0 or 1, and any bytes are a number.
                let bytes: Vec<u8> = (0..count * element.size()).map(|i| (i % 2) as u8).collect();
                let x = client
                    .buffer_from_host(&bytes, element, dims, device)
                    .unwrap();
                assert_eq!(x.element_type().unwrap(), element, "{name}");
                assert_eq!(x.dims().unwrap(), dims, "{name} {element:?}");
                assert_eq!(x.to_host().unwrap(), bytes, "{name} {element:?} {dims:?}");
            }
        }
    });
}

#[test]
fn a_bad_program_is_refused_in_the_plugins_words() {
    on_each_cpu_plugin(1, |name, client| {
        let text = ADD.replace("-> tensor<2x3xf32>", "-> tensor<7xf32>");
        let error = client
            .compile(&Program { text: &text }, &CompileOptions::default())
            .err()
            .unwrap();
        let message = error.to_string();
        assert!(
            message.starts_with("PJRT_Client_Compile: the plugin reports "),
            "{name}: {message}"
        );
        assert!(message.contains("tensor<7xf32>"), "{name}: {message}");
        assert!(error.code().is_some(), "{name}: {message}");
    });
}

#[test]
fn bad_arguments_are_refused() {
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, ADD);
        let device = &client.devices()[0];
        let error = client
            .buffer_from_host(&[0; 23], ElementType::F32, &[2, 3], device)
            .err()
            .unwrap();
        assert!(matches!(error, Error::Mismatch(_)), "{name}: {error}");
        assert!(error.to_string().contains("23 bytes"), "{name}: {error}");
        // One argument for two, rows for two devices, an array of another size.
        let refused = |rows: Vec<Vec<Arg>>| {
            let run = program.execute(rows);
            let error = run.and_then(|run| run.done[0].wait()).unwrap_err();
            error.to_string()
        };
        let x = upload(client, &[0.; 6]);
        let error = refused(vec![vec![Arg::Borrow(&x)]]);
        assert!(error.contains("expected 2"), "{name}: {error}");
        let error = refused(vec![vec![], vec![]]);
        assert!(error.contains("1 devices"), "{name}: {error}");
        let short = upload(client, &[0.; 5]);
        let error = refused(vec![vec![Arg::Borrow(&x), Arg::Borrow(&short)]]);
        assert!(error.contains("20"), "{name}: {error}");
    });
}

#[test]
fn the_second_compilation_comes_from_the_cache() {
    on_each_cpu_plugin(1, |name, client| {
        let folder = tempfile::tempdir().unwrap();
        let cache = CompileCache::in_folder(folder.path().to_owned());
        let compile = |text| {
            let options = CompileOptions::default();
            client
                .compile_cached(&Program { text }, &options, Some(&cache))
                .unwrap()
        };
        let check = |program: &Executable| {
            let run = program.execute(vec![vec![Arg::Donate(upload(client, &[2.; 1000]))]]);
            let y = run.unwrap().buffers[0][0].to_host().unwrap();
            assert_eq!(f32_values(&y), [3.; 1000], "{name}");
            // Asserted at start-up, so it must survive the cache.
            assert_eq!(
                program.memory_stats().unwrap().unwrap().alias_bytes,
                4000,
                "{name}"
            );
        };
        let (program, origin) = compile(DONATED);
        assert_eq!(origin, Origin::Compiler, "{name}");
        check(&program);
        let (program, origin) = compile(DONATED);
        assert_eq!(origin, Origin::Cache, "{name}");
        check(&program);
        let other = DONATED.replace("dense<1.0>", "dense<2.0>");
        assert_eq!(compile(&other).1, Origin::Compiler, "{name}");

        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().unwrap() == "bin" {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let (program, origin) = compile(DONATED);
        assert_eq!(origin, Origin::Compiler, "{name}");
        check(&program);
        assert_eq!(compile(DONATED).1, Origin::Cache, "{name}");
    });
}

#[test]
fn hlo_shows_the_collective_that_the_partitioner_inserts() {
    on_each_cpu_plugin(4, |name, client| {
        let options = CompileOptions {
            num_partitions: 4,
            ..CompileOptions::default()
        };
        let compile =
            |options: &CompileOptions| client.compile(&Program { text: SHARDED }, options);
        let (program, hlo) = export_hlo(&options, Some("spmd.*|shardy.*"), compile).unwrap();
        assert_eq!(program.num_outputs(), 2, "{name}");
        assert!(!hlo.before_optimizations.contains("all-reduce("), "{name}");
        assert!(hlo.before_optimizations.contains("f32[8,2]"), "{name}");
        assert!(hlo.after_optimizations.contains("all-reduce("), "{name}");
        assert!(!hlo.passes.is_empty(), "{name}");
        assert!(
            hlo.passes
                .iter()
                .all(|(_, text)| text.starts_with("HloModule")),
            "{name}"
        );
        assert!(
            export_hlo(&options, None, compile)
                .unwrap()
                .1
                .passes
                .is_empty(),
            "{name}"
        );
    });
}

#[test]
fn costs_and_memory_are_told_or_none() {
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, ADD);
        let memory = program.memory_stats().unwrap().unwrap();
        assert_eq!(
            (memory.argument_bytes, memory.alias_bytes),
            (48, 0),
            "{name}"
        );
        if let Some(costs) = program.cost_analysis().unwrap() {
            assert_eq!(costs["flops"], 6., "{name}: {costs:?}");
            assert_eq!(costs["bytes accessed"], 72., "{name}: {costs:?}");
        }
        assert!(client.devices()[0].memory_in_use().is_ok(), "{name}");
    });
}

fn compile(client: &Client, text: &str) -> Executable {
    client
        .compile(&Program { text }, &CompileOptions::default())
        .unwrap()
}

fn upload(client: &Client, values: &[f32]) -> xla_moco::pjrt::Buffer {
    let device = &client.devices()[0];
    client
        .buffer_from_host(
            &f32_bytes(values),
            ElementType::F32,
            &[values.len()],
            device,
        )
        .unwrap()
}

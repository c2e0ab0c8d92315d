//! The runtime on real plugins: every check on both CPU plugins.

mod support;

use std::sync::Arc;

use support::{ADD, DONATED, SHARDED, compile, f32_bytes, f32_values, on_each_cpu_plugin, upload};
use xla_moco::graph::DType;
use xla_moco::pjrt::{Arg, Client, ClientOptions, CompileOptions, Error, Program};

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
                .buffer_from_host(&f32_bytes(values), DType::F32, &[2, 3], device)
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
            assert_eq!(z.element_type().unwrap(), DType::F32, "{name}");
            assert_eq!(z.dims().unwrap(), [2, 3], "{name}");
            assert_eq!(
                f32_values(&z.to_host().unwrap()),
                [11., 22., 33., 44., 55., 66.],
                "{name}"
            );
        }
    });
}

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
                let shard = client.buffer_from_host(&f32_bytes(&rows), DType::F32, &[2, 2], device);
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
            .buffer_from_host_async(Arc::clone(&bytes), DType::F32, &[3, 2], device)
            .unwrap();
        x.ready().unwrap().wait().unwrap();
        let pending = x.to_host_async().unwrap();
        drop(x);
        assert_eq!(f32_values(&pending.wait().unwrap()), values, "{name}");
        // The plugin's thread lets go a moment after the array is ready; if it
        // never did, this would not end.
        while Arc::strong_count(&bytes) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(f32_values(&bytes), values, "{name}");
    });
}

#[test]
fn everything_may_be_dropped_while_work_is_under_way() {
    for (_, plugin) in support::cpu_plugins() {
        for _ in 0..20 {
            let client = Client::new(&plugin, &ClientOptions::default()).unwrap();
            let program = compile(&client, DONATED);
            let x = upload(&client, &[1.; 1000]);
            drop(client);
            let run = program.execute(vec![vec![Arg::Donate(x)]]).unwrap();
            let pending = run.buffers[0][0].to_host_async().unwrap();
            drop(program);
            drop(run.buffers);
            drop(pending);
            // The client goes with the last of these.
        }
    }
}

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
            .buffer_from_host(&bytes, DType::BF16, &[2], device)
            .unwrap();
        let run = program.execute(vec![vec![Arg::Donate(x)]]).unwrap();
        let y = &run.buffers[0][0];
        assert_eq!(y.element_type().unwrap(), DType::BF16, "{name}");
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
        for element in DType::ALL {
            for dims in [&[][..], &[6], &[2, 3], &[3, 1, 2], &[0, 4]] {
                let count: usize = dims.iter().product();
                // Predicates are 0 or 1, and any bytes are a number.
                let bytes: Vec<u8> = (0..count * element.bytes())
                    .map(|i| (i % 2) as u8)
                    .collect();
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
fn bad_arguments_are_refused() {
    on_each_cpu_plugin(1, |name, client| {
        let program = compile(client, ADD);
        let device = &client.devices()[0];
        let error = client
            .buffer_from_host(&[0; 23], DType::F32, &[2, 3], device)
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

//! Compiling for TPUs on a machine that has none. Runs where libtpu is
//! installed (`xla-moco plugins install tpu`), else skips.

mod support;

use xla_moco::pjrt::{Code, CompileOptions, Program, Topology, export_hlo};

#[test]
fn compiles_for_tpus_that_are_not_there() {
    support::without_a_tpu("in_a_process_of_its_own");
}

/// The sum over a batch that 8 devices share, and an update in place.
fn program(rows: usize) -> String {
    format!(
        r#"
module attributes {{mhlo.num_partitions = 8 : i32, mhlo.num_replicas = 1 : i32}} {{
  sdy.mesh @mesh = <["data"=8]>
  func.func public @main(
      %x: tensor<{rows}x1024xf32> {{sdy.sharding = #sdy.sharding<@mesh, [{{"data"}}, {{}}]>}},
      %w: tensor<1024x1024xf32> {{sdy.sharding = #sdy.sharding<@mesh, [{{}}, {{}}]>,
                                  tf.aliasing_output = 0 : i32}})
      -> (tensor<1024x1024xf32> {{sdy.sharding = #sdy.sharding<@mesh, [{{}}, {{}}]>}}) {{
    %g = stablehlo.dot_general %x, %x, contracting_dims = [0] x [0]
        : (tensor<{rows}x1024xf32>, tensor<{rows}x1024xf32>) -> tensor<1024x1024xf32>
    %y = stablehlo.add %w, %g : tensor<1024x1024xf32>
    return %y : tensor<1024x1024xf32>
  }}
}}"#
    )
}

#[test]
#[ignore = "run by compiles_for_tpus_that_are_not_there, alone in a process"]
fn in_a_process_of_its_own() {
    let plugin = support::tpu_plugin();
    // 4 chips with 2 devices each.
    let topology = Topology::new(&plugin, Some("v3:2x2"), &[]).unwrap();
    assert_eq!(topology.platform_name(), "tpu");
    assert_eq!(topology.devices().len(), 8);
    let options = CompileOptions {
        num_partitions: 8,
        ..CompileOptions::default()
    };
    let text = program(1024);
    let (compiled, hlo) = export_hlo(&options, None, |o| {
        topology.compile(&Program { text: &text }, o)
    })
    .unwrap();
    assert!(hlo.after_optimizations.contains("all-reduce"));
    assert_eq!(compiled.num_outputs(), 1);
    let memory = compiled.memory_stats().unwrap().unwrap();
    // One eighth of x, all of w; w's memory becomes the result's.
    assert_eq!(memory.argument_bytes, 4 * (128 + 1024) * 1024);
    assert_eq!(memory.alias_bytes, 4 * 1024 * 1024);
    let costs = compiled.cost_analysis().unwrap().unwrap();
    assert!(costs["flops"] >= 2. * 128. * 1024. * 1024., "{costs:?}");
    assert!(costs["optimal_seconds"] > 0., "{costs:?}");
    assert!(!compiled.serialize().unwrap().is_empty());

    // 2^26 rows: 32 GiB a device, of which a v3 has 16.
    let text = program(1 << 26);
    let error = topology
        .compile(&Program { text: &text }, &options)
        .err()
        .unwrap();
    assert_eq!(error.code(), Some(Code::RESOURCE_EXHAUSTED), "{error}");
    assert!(error.to_string().contains("memory"), "{error}");

    let error = Topology::new(&plugin, Some("v9:1x1"), &[])
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("PJRT_TopologyDescription_Create"), "{error}");
}

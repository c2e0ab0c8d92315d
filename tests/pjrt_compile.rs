//! Compilation on both CPU plugins: errors, the cache, HLO text, costs.

mod support;

use support::{ADD, DONATED, SHARDED, compile, f32_values, on_each_cpu_plugin, upload};
use xla_moco::pjrt::{Arg, CompileCache, CompileOptions, Executable, Origin, Program, export_hlo};

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

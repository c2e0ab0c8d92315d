//! The table compiles for TPUs too, where libtpu is installed; no TPU is
//! needed.

use std::process::Command;

use xla_moco::graph::{DType, emit};
use xla_moco::pjrt::install::{self, ResolveOptions};
use xla_moco::pjrt::{
    CompileOptions, Plugin, Program, TPU_DEVICELESS_ENV, Topology, tpu_is_present,
};

use crate::module::Module;

/// libtpu reads its environment when it loads, so the check gets a process of
/// its own.
#[test]
fn tpus_take_every_op() {
    let known = install::candidates("tpu");
    let Ok(Some(_)) = known.and_then(|k| install::installed(k[0], &ResolveOptions::default()))
    else {
        eprintln!("skipped: libtpu is not installed");
        return;
    };
    if tpu_is_present() {
        eprintln!("skipped: there is a TPU, and this must not touch it");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "tpu::in_a_process_of_its_own"])
        .envs(TPU_DEVICELESS_ENV)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "run by tpus_take_every_op, alone in a process"]
fn in_a_process_of_its_own() {
    let known = install::candidates("tpu").unwrap()[0];
    let path = install::installed(known, &ResolveOptions::default())
        .unwrap()
        .unwrap();
    let plugin = Plugin::load(&path).unwrap();
    let topology = Topology::new(&plugin, Some("v3:2x2"), &[]).unwrap();
    for (float, with_gradients) in [(DType::F32, true), (DType::BF16, false)] {
        let module = Module::new(float, float, with_gradients);
        let text = emit::stablehlo("table", &module.graph, None);
        let compiled = topology.compile(&Program { text: &text }, &CompileOptions::default());
        if let Err(error) = compiled {
            panic!("{float}: {error}");
        }
    }
}

//! The table compiles for TPUs too, where libtpu is installed; no TPU is
//! needed.

use xla_moco::graph::{DType, emit};
use xla_moco::pjrt::{CompileOptions, Program, Topology};

use crate::module::Module;

#[test]
fn tpus_take_every_op() {
    crate::support::without_a_tpu("tpu::in_a_process_of_its_own");
}

#[test]
#[ignore = "run by tpus_take_every_op, alone in a process"]
fn in_a_process_of_its_own() {
    let plugin = crate::support::tpu_plugin();
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

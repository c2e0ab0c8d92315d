//! What the tests of the runtime share.
#![allow(dead_code)] // Each test binary uses its part.

pub mod browser;
pub mod evaluation;

use std::process::Command;
use std::sync::Arc;

use xla_moco::graph::DType;
use xla_moco::pjrt::install::{self, ResolveOptions};
use xla_moco::pjrt::{
    Buffer, Client, ClientOptions, CompileOptions, Executable, Plugin, Program, TPU_DEVICELESS_ENV,
    Value, tpu_is_present,
};

/// Names a plugin to test in place of the CPU's, as `--pjrt` does: a GPU's.
const TESTED: &str = "XLA_MOCO_TEST_PJRT";

/// The known CPU plugins of this machine by package; fetched on first use. With
/// the variable above, that plugin alone.
pub fn cpu_plugins() -> Vec<(&'static str, Arc<Plugin>)> {
    if let Ok(name) = std::env::var(TESTED) {
        let plugin = install::load(&name, &ResolveOptions::default()).unwrap();
        return vec![("the plugin of XLA_MOCO_TEST_PJRT", plugin)];
    }
    install::candidates("cpu")
        .expect("this machine has a CPU plugin")
        .into_iter()
        .map(|known| {
            let path = install::install(known, &ResolveOptions::default()).unwrap();
            (known.package(), Plugin::load(&path).unwrap())
        })
        .collect()
}

/// Runs a check on a client with so many devices of each CPU plugin.
pub fn on_each_cpu_plugin(devices: usize, check: impl Fn(&str, &Arc<Client>)) {
    for (name, plugin) in cpu_plugins() {
        let options = ClientOptions {
            devices: Some(devices),
            extra: test_options(),
            ..ClientOptions::default()
        };
        let client = match Client::new(&plugin, &options) {
            // Devices of a CPU are as many as one asks for.
            Err(error) if devices > 1 && std::env::var(TESTED).is_ok() => {
                eprintln!("skipped: {error:#}");
                continue;
            }
            client => client.unwrap(),
        };
        if std::env::var(TESTED).is_err() {
            assert_eq!(client.devices().len(), devices, "{name}");
        }
        check(name, &client);
    }
}

/// Tests run beside each other: none may take a GPU's memory for itself.
pub fn test_options() -> Vec<(String, Value)> {
    let gpu = std::env::var(TESTED).is_ok_and(|name| name == "gpu" || name == "rocm");
    let on_demand = ("preallocate".to_owned(), Value::Bool(false));
    gpu.then_some(on_demand).into_iter().collect()
}

pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// The sum of two matrices.
pub const ADD: &str = r#"
module {
  func.func public @main(%x: tensor<2x3xf32>, %y: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %z = "stablehlo.add"(%x, %y) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
    "func.return"(%z) : (tensor<2x3xf32>) -> ()
  }
}"#;

/// The global mean over a batch that four devices share, and each device's
/// own rows beside it.
pub const SHARDED: &str = r#"
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

/// x + 1 in place, and the sum of x before that.
pub const DONATED: &str = r#"
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

/// Compiles for one device.
pub fn compile(client: &Client, text: &str) -> Executable {
    client
        .compile(&Program { text }, &CompileOptions::default())
        .unwrap()
}

/// A vector on the first device.
pub fn upload(client: &Client, values: &[f32]) -> Buffer {
    let device = &client.devices()[0];
    client
        .buffer_from_host(&f32_bytes(values), DType::F32, &[values.len()], device)
        .unwrap()
}

/// Runs the ignored test `name` of this binary where libtpu is installed and
/// no TPU is. libtpu reads its environment when it loads, so the test gets a
/// process of its own.
pub fn without_a_tpu(name: &str) {
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
        .args(["--ignored", "--exact", name, "--test-threads=1"])
        .envs(TPU_DEVICELESS_ENV)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("1 passed"), "{told}");
}

/// libtpu, which [`without_a_tpu`] has found installed.
pub fn tpu_plugin() -> Arc<Plugin> {
    let known = install::candidates("tpu").unwrap()[0];
    let path = install::installed(known, &ResolveOptions::default());
    Plugin::load(&path.unwrap().unwrap()).unwrap()
}

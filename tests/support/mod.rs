//! What the tests of the runtime share.
#![allow(dead_code)] // Each test binary uses its part.

use std::sync::Arc;

use xla_moco::pjrt::install::{self, ResolveOptions};
use xla_moco::pjrt::{Client, ClientOptions, Plugin};

/// The known CPU plugins of this machine by package; fetched on first use.
pub fn cpu_plugins() -> Vec<(&'static str, Arc<Plugin>)> {
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
            ..ClientOptions::default()
        };
        let client = Client::new(&plugin, &options).unwrap();
        assert_eq!(client.devices().len(), devices, "{name}");
        check(name, &client);
    }
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

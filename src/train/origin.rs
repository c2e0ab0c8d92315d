//! What a state's bits depend on.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Origin, host_name};
use crate::config::RunConfig;
use crate::hash::{hex, sha256_of_file};
use crate::pjrt::{self, Client};

/// Instruction sets that decide which code a compiler makes, by the
/// beginnings of their names.
const INSTRUCTION_SETS: [&str; 11] = [
    "sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve", "sme", "bf16",
];

/// Where the states of this process come from.
pub fn of_this_process(
    config: &RunConfig,
    data_fingerprint: String,
    program: &str,
    client: &Client,
) -> Result<Origin> {
    let plugin = client.plugin();
    let build = sha256_of_file(plugin.path())
        .with_context(|| format!("cannot read {}", plugin.path().display()))?;
    Ok(Origin {
        config_fingerprint: config.fingerprint(),
        data_fingerprint,
        program_fingerprint: hex(&Sha256::digest(program)),
        plugin_name: client.platform_name().to_owned(),
        plugin_version: client.platform_version().to_owned(),
        plugin_build: build,
        device_count: config.mesh.data as u32,
        thread_count: pjrt::pinned_threads() as u32,
        cpu_features: cpu_features(),
        host: host_name(),
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// In words, each thing for which `now` may give other last bits than
/// `before`; nothing: the bits are those of an unbroken run.
pub fn what_differs(before: &Origin, now: &Origin) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, before: String, now: String| {
        if before != now {
            all.push(format!("{what} was {before}, is {now}"));
        }
    };
    let plugin = |o: &Origin| {
        let build = o.plugin_build.get(..8).unwrap_or(&o.plugin_build);
        format!("{} (build {build})", o.plugin_name)
    };
    compare("the plugin", plugin(before), plugin(now));
    let devices = |o: &Origin| o.device_count.to_string();
    compare("the number of devices", devices(before), devices(now));
    let threads = |o: &Origin| o.thread_count.to_string();
    compare("the thread pool", threads(before), threads(now));
    let features = |o: &Origin| o.cpu_features.join(" ");
    compare("the processor", features(before), features(now));
    let program = |o: &Origin| {
        let hash = o.program_fingerprint.get(..8).unwrap_or("unknown");
        format!("{hash} (xla-moco {})", o.crate_version)
    };
    compare("the program", program(before), program(now));
    all
}

fn cpu_features() -> Vec<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // x86-64 says flags, aarch64 Features.
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let words = line
        .and_then(|line| line.split_once(':'))
        .map_or("", |(_, words)| words);
    let mut features: Vec<String> = words
        .split_whitespace()
        .filter(|word| INSTRUCTION_SETS.iter().any(|set| word.starts_with(set)))
        .map(str::to_owned)
        .collect();
    features.sort();
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_bits_is_told() {
        let before = Origin {
            plugin_name: "cpu".into(),
            device_count: 1,
            thread_count: 2,
            host: "a".into(),
            ..Origin::default()
        };
        let other_host = Origin {
            host: "b".into(),
            ..before.clone()
        };
        assert_eq!(what_differs(&before, &other_host), Vec::<String>::new());
        let other_devices = Origin {
            device_count: 4,
            ..before.clone()
        };
        assert_eq!(
            what_differs(&before, &other_devices),
            ["the number of devices was 1, is 4"]
        );
    }
}

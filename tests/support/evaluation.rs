//! What the tests of evaluations share.

use std::path::Path;
use std::process::Output;

use serde_json::Value as Json;
use xla_moco::checkpoint::{Dtype, HostTensor, Origin, RunDir, Snapshot, save};
use xla_moco::config::{Override, RunConfig};
use xla_moco::graph::DType;
use xla_moco::programs::features;
use xla_moco::rng::{Purpose, Stream};

use super::f32_bytes;

/// A run folder whose checkpoint, of step 12, holds random variables: the
/// quick start's configuration on few pictures, with some keys set.
pub fn run_folder(root: &Path, more: &[Override]) -> RunDir {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.json");
    let small = serde_json::json!({"classes": 4, "images": 200, "test_images": 40, "size": 32});
    let mut overrides = vec![Override::new("data.synthetic", small)];
    overrides.extend_from_slice(more);
    let config = RunConfig::load(&path, &overrides).unwrap();
    let run = RunDir::create(root).unwrap();
    run.write_config(&config.to_value()).unwrap();
    let program = features::build(&config, 1, features::Form::Unit).unwrap();
    let inputs = &program.graph.inputs[..program.graph.inputs.len() - 1];
    let random = |(i, input): (usize, &xla_moco::graph::Input)| {
        let mut stream = Stream::new(5, Purpose::Test, (i as u32, 0));
        let count = input.value.shape.len();
        assert_eq!(input.value.shape.dtype, DType::F32);
        let values: Vec<f32> = (0..count).map(|_| 0.1 * stream.normal() as f32).collect();
        HostTensor {
            name: input.name.clone(),
            dtype: Dtype::F32,
            shape: input.value.shape.dims().to_vec(),
            data: f32_bytes(&values),
        }
    };
    let tensors = inputs.iter().enumerate().map(random).collect();
    save(
        &run,
        &Snapshot::new(12, tensors).unwrap(),
        &Origin::default(),
    )
    .unwrap();
    run
}

/// Fails unless the command refuses with these words.
pub fn refused(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(words), "expected {words:?} in: {told}");
    assert!(output.stdout.is_empty());
}

pub fn json(output: &Output) -> Json {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else")
}

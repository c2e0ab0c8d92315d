//! Running programs on several CPU devices with whole arrays in and out.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use xla_moco::config::RunConfig;
use xla_moco::graph::block::Lowering;
use xla_moco::graph::{DType, Graph, Mesh, Shape, emit};
use xla_moco::pjrt::{Arg, Client, ClientOptions, CompileOptions, Executable, HloText, export_hlo};
use xla_moco::plan::AFTER_PARTITIONING;
use xla_moco::programs::batch::STOP;
use xla_moco::programs::train_step::{self, TrainStep, Views};
use xla_moco::rng::{Purpose, Stream};
use xla_moco::train::Parts;

use crate::support::cpu_plugins;

pub const BATCH: usize = 32;
pub const HIDDEN: usize = 40;
pub const OUT: usize = 16;

/// A model of two blocks in f32, on `devices`, with some keys set.
pub fn config(devices: usize, set: &[(&str, Json)]) -> RunConfig {
    let head = |layers: usize| json!({"layers": layers, "hidden": HIDDEN, "out": OUT});
    let mut config = json!({
        "batch": BATCH,
        "model": {
            "arch": "vit", "blocks": 2, "dim": 24, "heads": 3, "patch": 4, "image_size": 16,
            "compute_dtype": "f32",
        },
        "method": {
            "name": "moco_v3", "temperature": 0.2, "momentum": 0.9,
            "projector": head(3), "predictor": head(2),
        },
        "optimizer": {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"total_steps": 10, "warmup_steps": 1},
        "mesh": {"data": devices},
    });
    for (key, value) in set {
        config[*key] = value.clone();
    }
    RunConfig::from_value(config).unwrap()
}

/// The step on finished views, without monitor.
pub fn step(config: &RunConfig, lowering: Lowering) -> TrainStep<'_> {
    TrainStep {
        config,
        views: Views::Normalised,
        queue: 0,
        classes: 0,
        lowering,
    }
}

/// Whole arrays by name: shape and bytes.
pub type Arrays = BTreeMap<String, (Shape, Vec<u8>)>;

pub fn f32s(bytes: &[u8]) -> Vec<f64> {
    let float = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
    bytes.chunks_exact(4).map(float).collect()
}

/// The initial state of a step.
pub fn state(step: &TrainStep) -> Arrays {
    let arrays = train_step::initial_state(step).into_iter();
    arrays.map(|a| (a.name, (a.shape, a.data))).collect()
}

/// The arguments of step `number` beside the state: each picture has a
/// brightness and a tint of its own, so that devices see different statistics.
pub fn batch(number: usize) -> Arrays {
    let mut arrays = Arrays::new();
    let shape = Shape::new(DType::F32, &[BATCH, 3, 16, 16]);
    for view in [1, 2] {
        let mut bytes = Vec::new();
        for picture in 0..BATCH {
            let item = ((number * 2 + view) as u32, picture as u32);
            let mut stream = Stream::new(0, Purpose::Test, item);
            let brightness = 4.0 * picture as f64 / BATCH as f64 - 2.0;
            for _channel in 0..3 {
                let tint = stream.normal();
                for _pixel in 0..256 {
                    let value = brightness + tint + 0.3 * stream.normal();
                    bytes.extend((value as f32).to_le_bytes());
                }
            }
        }
        arrays.insert(format!("view{view}"), (shape, bytes));
    }
    let mut scalar = |name: &str, dtype: DType, bytes: [u8; 4]| {
        arrays.insert(name.into(), (Shape::scalar(dtype), bytes.to_vec()));
    };
    scalar("lr", DType::F32, 1e-3f32.to_le_bytes());
    scalar("momentum", DType::F32, 0.9f32.to_le_bytes());
    scalar("step", DType::I32, (number as i32).to_le_bytes());
    arrays
}

/// A program on the default CPU plugin.
pub struct Runner {
    client: std::sync::Arc<Client>,
    executable: Executable,
    graph: Graph,
    devices: usize,
}

impl Runner {
    pub fn new(graph: Graph, devices: usize) -> Self {
        let (client, text, options) = prepared(&graph, devices);
        let program = xla_moco::pjrt::Program { text: &text };
        let executable = client.compile(&program, &options).unwrap();
        Self {
            client,
            executable,
            graph,
            devices,
        }
    }

    pub fn of_step(step: &TrainStep) -> Self {
        let graph = train_step::build(step).unwrap().graph;
        Self::new(graph, step.config.mesh.data)
    }

    /// Bytes that device 0 holds of the argument `name`.
    pub fn held_bytes(&self, name: &str) -> usize {
        let input = self.graph.inputs.iter().find(|i| i.name == name).unwrap();
        let (shape, sharding) = (input.value.shape, input.sharding.as_ref());
        let parts = Parts::of(shape, sharding, self.devices).unwrap();
        parts.dims().iter().product::<usize>() * shape.dtype.bytes()
    }

    /// Memory beside arguments and results, on each device.
    pub fn temporary_bytes(&self) -> u64 {
        let memory = self.executable.memory_stats().unwrap();
        memory.expect("CPU plugins tell").temp_bytes
    }

    pub fn call(&self, arrays: &Arrays) -> Arrays {
        let mut rows: Vec<Vec<Arg>> = (0..self.devices).map(|_| Vec::new()).collect();
        for input in &self.graph.inputs {
            // No host wants to stop.
            let zeros = || (input.value.shape, vec![0; input.value.shape.bytes()]);
            let given = match input.name == STOP {
                true => &zeros(),
                false => &arrays[&input.name],
            };
            let (shape, bytes) = given;
            assert_eq!(*shape, input.value.shape, "{}", input.name);
            let parts = Parts::of(*shape, input.sharding.as_ref(), self.devices).unwrap();
            for (d, device) in self.client.devices().iter().enumerate() {
                let part = parts.cut(bytes, d);
                let buffer = self
                    .client
                    .buffer_from_host(&part, shape.dtype, parts.dims(), device);
                rows[d].push(Arg::Donate(buffer.unwrap()));
            }
        }
        let run = self.executable.execute(rows).unwrap();
        let mut results = Arrays::new();
        for (i, output) in self.graph.outputs.iter().enumerate() {
            let shape = output.value.shape;
            let parts = Parts::of(shape, output.sharding.as_ref(), self.devices).unwrap();
            let held: Vec<Vec<u8>> = run
                .buffers
                .iter()
                .map(|row| row[i].to_host().unwrap())
                .collect();
            let whole = match parts.are_whole() {
                false => parts.join(held).unwrap(),
                // Every device must have come to the same.
                true => {
                    assert!(held.iter().all(|h| *h == held[0]), "{}", output.name);
                    held[0].clone()
                }
            };
            results.insert(output.name.clone(), (shape, whole));
        }
        results
    }
}

fn prepared(graph: &Graph, devices: usize) -> (std::sync::Arc<Client>, String, CompileOptions) {
    let (_, plugin) = cpu_plugins().remove(0);
    let options = ClientOptions {
        devices: Some(devices),
        ..ClientOptions::default()
    };
    let client = Client::new(&plugin, &options).unwrap();
    let mesh = (devices > 1).then(|| Mesh::data(devices));
    let text = emit::stablehlo("mesh", graph, mesh.as_ref());
    let options = CompileOptions {
        num_partitions: devices,
        ..CompileOptions::default()
    };
    (client, text, options)
}

/// The HLO of a step, with that right after partitioning.
pub fn hlo(step: &TrainStep) -> HloText {
    let graph = train_step::build(step).unwrap().graph;
    let (client, text, options) = prepared(&graph, step.config.mesh.data);
    let program = xla_moco::pjrt::Program { text: &text };
    let compile = |options: &CompileOptions| client.compile(&program, options);
    export_hlo(&options, Some(AFTER_PARTITIONING), compile)
        .unwrap()
        .1
}

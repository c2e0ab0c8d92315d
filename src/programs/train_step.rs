//! One whole step of training: views, both encoders, loss, gradients,
//! optimizer, momentum update and monitors in one program.

use super::batch::{STOP, batch_inputs, pictures};
use super::knn_queue::{self, Queue, Samples, Vote};
use super::{HostArray, Program, mesh, monitors};
use crate::config::{OptimizerSharding, RunConfig};
use crate::graph::block::Lowering;
use crate::graph::ops::Comparison;
use crate::graph::vjp::gradients;
use crate::graph::{Builder, DType, Result, Shape, Sharding, Value};
use crate::methods::{self, Chunks, Pictures, Step};
use crate::models;
use crate::nn::{Role, Spec, Variables, materialise};
use crate::optim::{self, Parameter};

/// What the program is given as views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// Crops (u8) and rows of augmentation parameters: what `train` runs.
    Augmented,
    /// Finished views, f32 [B, 3, S, S]: for parity and benchmarks.
    Normalised,
}

/// Which train step to build.
#[derive(Clone, Copy, Debug)]
pub struct TrainStep<'a> {
    pub config: &'a RunConfig,
    pub views: Views,
    /// Rows of the kNN monitor's queue; 0 for none.
    pub queue: usize,
    /// Classes of the training set; counts only with a queue.
    pub classes: usize,
    pub lowering: Lowering,
}

/// What the train step has to know of the training set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingSet {
    pub images: usize,
    /// 0 where the pictures have no labels.
    pub classes: usize,
}

impl TrainingSet {
    /// ImageNet-1k's.
    pub const IMAGENET: Self = Self {
        images: 1_281_167,
        classes: 1000,
    };
}

impl<'a> TrainStep<'a> {
    /// The step that `train` runs and `export` writes. The kNN monitor has its
    /// queue where the pictures have labels, however often it classifies: that
    /// may change on resume, and the state must not. A lowering that the
    /// configuration leaves open is [`Lowering::Unrolled`] here.
    pub fn of_run(config: &'a RunConfig, set: TrainingSet) -> Self {
        let queue = match (set.classes, &config.method.supervised) {
            // A classifier tells itself how well it does.
            (0, _) | (_, Some(_)) => 0,
            _ => config.monitor.queue_size(set.images, config.batch),
        };
        Self {
            config,
            views: Views::Augmented,
            queue,
            classes: set.classes,
            lowering: super::lowering(config).unwrap_or(Lowering::Unrolled),
        }
    }
}

/// Builds the program. See [`Program`] for the order of arguments; after the
/// state come `view1`, `view2`, for crops `augment1`, `augment2`, with a queue
/// `labels` (i32 [B], -1 for none), `ids` (u32 [B]) and `classify` (pred: whether
/// the monitor classifies in this step), and the scalars `lr`, `momentum`
/// (f32) and `step` (i32, this update's number from 0). Training with labels has
/// one view, and after it `labels`, `mix` and, as far as the configuration draws
/// them, `erase` and `drop_path`. After the new state comes `metrics`.
pub fn build(spec: &TrainStep) -> Result<Program> {
    let config = spec.config;
    let b = Builder::new();
    let specs = methods::specs(config);
    let variables = Variables::new(specs.iter().map(|spec| {
        let value = replicated_input(&b, &spec.name, f32_shape(&spec.dims));
        (spec.name.clone(), value)
    }));
    let trained: Vec<&Spec> = specs.iter().filter(|s| s.role == Role::Trained).collect();
    let slot_names = optim::slots(&config.optimizer);
    let slots: Vec<Vec<Value>> = trained
        .iter()
        .map(|spec| {
            let input = |slot| {
                let layout = update_layout(config, spec);
                b.sharded_input(slot_name(slot, spec), f32_shape(&spec.dims), Some(layout))
            };
            slot_names.iter().map(|slot| input(slot)).collect()
        })
        .collect();
    let old_queue = queue_inputs(&b, config, spec.queue);
    let queue_parts = old_queue.map_or(0, |_| QUEUE.len());
    let state = specs.len() + slot_names.len() * trained.len() + queue_parts;

    let batch = batch_inputs(&b, spec)?;
    methods::prepare(&b, config, &variables)?;
    let old = |spec: &&Spec| variables.get(&spec.name);
    let parameters: Vec<Value> = trained.iter().map(old).collect::<Result<_>>()?;
    let chunks = Chunks {
        number: config.accumulate,
        sources: batch.sources,
        pictures: &|b, sources| pictures(b, spec, sources),
    };
    let whole = |b: &Builder| -> Result<Value> {
        let x = pictures(b, spec, &chunks.sources)?;
        match &batch.supervised {
            Some(supervised) => supervised.change(b, config, x, batch.step),
            None => Ok(x),
        }
    };
    let forward = methods::forward(&Step {
        b: &b,
        config,
        lowering: spec.lowering,
        variables: &variables,
        pictures: match chunks.number {
            1 => Pictures::Whole(whole(&b)?),
            _ => Pictures::InChunks(&chunks),
        },
        supervision: match &batch.supervised {
            Some(supervised) => Some(supervised.supervision(&b)?),
            None => None,
        },
        momentum: batch.momentum,
    })?;
    let gradients = gradients(&b, forward.loss, &parameters)?;

    let scope = b.scope("optimizer");
    let mut updates = Vec::new();
    for (i, (spec, slots)) in trained.iter().zip(slots).enumerate() {
        // Each device makes its own part of the update.
        let layout = update_layout(config, spec);
        let part = |value: Value| match layout.is_replicated() {
            true => Ok(value),
            false => b.constrain(value, &layout),
        };
        updates.push(Parameter {
            name: spec.name.clone(),
            value: part(parameters[i])?,
            gradient: part(gradients[i])?,
            slots,
            lr_scale: match config.optimizer.layer_decay {
                Some(decay) => models::layer_lr_scale(&config.model, &spec.name, decay),
                None => 1.0,
            },
            held: held(&b, config, spec, batch.step)?,
        });
    }
    let update = optim::update(&b, &config.optimizer, &updates, batch.lr, batch.step)?;
    drop(scope);
    for (spec, (value, _)) in trained.iter().zip(&update.parameters) {
        variables.set(&spec.name, *value);
    }

    for spec in &specs {
        replicated_output(&b, &spec.name, variables.get(&spec.name)?)?;
    }
    for (spec, (_, slots)) in trained.iter().zip(update.parameters) {
        for (slot, value) in slot_names.iter().zip(slots) {
            state_output(
                &b,
                &slot_name(slot, spec),
                value,
                update_layout(config, spec),
            )?;
        }
    }
    let mut metrics = vec![
        ("loss".to_owned(), forward.loss),
        ("grad_norm".to_owned(), update.gradient_norm),
    ];
    if config.monitor.in_step {
        let named = forward.metrics.into_iter();
        metrics.extend(named.map(|(name, value)| (name.to_owned(), value)));
        let gradients = updates.iter().map(|u| (u.name.as_str(), u.gradient));
        metrics.extend(monitors::of_step(&b, gradients, forward.features)?);
    }
    if let (Some(queue), Some(batch)) = (&old_queue, &batch.monitored) {
        let samples = Samples {
            features: forward.features,
            labels: batch.labels,
            ids: batch.ids,
        };
        let vote = Vote {
            k: config.monitor.knn_k,
            temperature: config.monitor.knn_temperature,
            classes: spec.classes,
        };
        let (queue, top1) = knn_queue::step(&b, queue, &samples, batch.classify, vote)?;
        for (name, value) in QUEUE.iter().zip(queue_values(&queue)) {
            replicated_output(&b, name, value)?;
        }
        metrics.push(("knn_top1".to_owned(), top1));
        if config.monitor.in_step {
            let rank = monitors::effective_rank(&b, &queue, batch.classify)?;
            metrics.push(("effective_rank".to_owned(), rank));
        }
    }
    if let Some(stop) = batch.stop {
        let any = b.reduce_max(stop, &[0])?;
        metrics.push((STOP.to_owned(), b.convert(any, DType::F32)?));
    }
    let values: Vec<Value> = metrics.iter().map(|(_, value)| *value).collect();
    let all = b.stack(&values)?;
    b.sharded_output("metrics", all, Some(Sharding::replicated(1)));
    Ok(Program {
        name: "train_step",
        graph: b.finish()?,
        mesh: mesh(config),
        state,
        metrics: metrics.into_iter().map(|(name, _)| name).collect(),
    })
}

/// The state before the first step, a pure function of the configuration and
/// the queue's size, in the program's order.
pub fn initial_state(step: &TrainStep) -> Vec<HostArray> {
    let config = step.config;
    let specs = methods::specs(config);
    let mut state: Vec<HostArray> = specs
        .iter()
        .map(|spec| {
            let origin = Spec {
                name: methods::starts_as(&spec.name),
                ..spec.clone()
            };
            HostArray::f32(&spec.name, &spec.dims, &materialise(&origin, config.seed))
        })
        .collect();
    for spec in specs.iter().filter(|s| s.role == Role::Trained) {
        for slot in optim::slots(&config.optimizer) {
            state.push(HostArray::zeros(
                slot_name(slot, spec),
                f32_shape(&spec.dims),
            ));
        }
    }
    if step.queue > 0 {
        let shapes = queue_shapes(config, step.queue);
        let zeros = |(name, shape): (&&str, Shape)| HostArray::zeros(*name, shape);
        state.extend(QUEUE.iter().zip(shapes).map(zeros));
    }
    state
}

/// Names of the queue's parts in the state.
const QUEUE: [&str; 5] = [
    "knn_queue.features",
    "knn_queue.labels",
    "knn_queue.ids",
    "knn_queue.pointer",
    "knn_queue.filled",
];

fn queue_shapes(config: &RunConfig, rows: usize) -> [Shape; 5] {
    [
        f32_shape(&[rows, config.model.features()]),
        Shape::new(DType::I32, &[rows]),
        Shape::new(DType::U32, &[rows]),
        Shape::scalar(DType::I32),
        Shape::scalar(DType::I32),
    ]
}

fn queue_values(queue: &Queue) -> [Value; 5] {
    [
        queue.features,
        queue.labels,
        queue.ids,
        queue.pointer,
        queue.filled,
    ]
}

fn queue_inputs(b: &Builder, config: &RunConfig, rows: usize) -> Option<Queue> {
    let shapes = queue_shapes(config, rows);
    let input = |i: usize| replicated_input(b, QUEUE[i], shapes[i]);
    (rows > 0).then(|| Queue {
        features: input(0),
        labels: input(1),
        ids: input(2),
        pointer: input(3),
        filled: input(4),
    })
}

fn slot_name(slot: &str, spec: &Spec) -> String {
    format!("optimizer.{slot}.{}", spec.name)
}

/// Whether this update leaves a parameter as it is, where some do.
fn held(b: &Builder, config: &RunConfig, spec: &Spec, step: Value) -> Result<Option<Value>> {
    match methods::held_steps(config, &spec.name) {
        0 => Ok(None),
        steps => {
            let first = b.full_like(step, steps as f64)?;
            b.compare(Comparison::Lt, step, first).map(Some)
        }
    }
}

pub(super) fn f32_shape(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

pub(super) fn replicated_input(b: &Builder, name: &str, shape: Shape) -> Value {
    b.sharded_input(name, shape, Some(Sharding::replicated(shape.rank())))
}

/// How a parameter's slots lie over the devices, and its update with them.
fn update_layout(config: &RunConfig, spec: &Spec) -> Sharding {
    match config.optimizer_sharding {
        OptimizerSharding::Replicated => Sharding::replicated(spec.dims.len()),
        OptimizerSharding::Zero1 => Sharding::first_divisible(&spec.dims, config.mesh.data),
    }
}

/// A result that takes over the memory of the argument of its name.
fn state_output(b: &Builder, name: &str, value: Value, layout: Sharding) -> Result<()> {
    b.sharded_output(name, value, Some(layout));
    b.donate(name, name)
}

fn replicated_output(b: &Builder, name: &str, value: Value) -> Result<()> {
    state_output(b, name, value, Sharding::replicated(value.rank()))
}

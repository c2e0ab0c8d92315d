//! The linear probe (Sec. 4.1 of the paper, "Evaluation"): softmax regression
//! on frozen features by SGD, for several learning rates at once.
//!
//! There is a classifier for each learning rate on each of the features that are
//! compared (those at several places of the backbone). All see the same batches
//! and start alike. They are stacked, so that a batch passes the backbone once
//! and one product gives the logits of all.
//!
//! Letters in names of values: b batch, t kinds of features, r rates, k all
//! classifiers (t * r, the rates of the first kind first), c classes, d features.

use super::features::{backbone, backbone_inputs};
use super::{HostArray, Program, augment};
use crate::config::{Augment, RunConfig};
use crate::data::augment::COLUMNS;
use crate::graph::ops::Comparison;
use crate::graph::vjp::gradients;
use crate::graph::{Builder, DType, Result, Shape, Value};
use crate::models::Tap;
use crate::nn::{
    Init, Mode, Role, Site, Spec, Variables, batch_norm, batch_norm_specs, cross_entropies,
    materialise, under,
};
use crate::optim::{Pace, Sgd};

pub const MOMENTUM: f64 = 0.9;

/// The classifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Kinds of features, each with classifiers of its own.
    pub taps: usize,
    /// Learning rates, each with a classifier of its own on each kind.
    pub rates: usize,
    pub classes: usize,
    /// Width of one kind of features.
    pub dim: usize,
    /// Whether features pass a batch norm without gain and bias first. Its
    /// statistics do not depend on the rate: all classifiers share it.
    pub batch_norm: bool,
}

/// What the step is given.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Features.
    Features,
    /// Crops, for the backbone of this configuration; features are read at its
    /// output, or at these places.
    Crops(&'a RunConfig, &'a Augment, &'a [Tap]),
}

impl Probe {
    /// How many classifiers there are.
    pub fn classifiers(&self) -> usize {
        self.taps * self.rates
    }

    /// The variables: what is trained first, then the statistics of the norm.
    pub fn specs(&self) -> Vec<Spec> {
        let [k, c, d] = [self.classifiers(), self.classes, self.dim];
        let mut specs = vec![
            Spec::trained("head.weight", &[k, c, d], Init::Normal(0.01)),
            Spec::trained("head.bias", &[k, c], Init::Zeros),
        ];
        if self.batch_norm {
            specs.extend(under("norm", batch_norm_specs(self.taps * d, false)));
        }
        specs
    }

    fn trained(&self) -> Vec<Spec> {
        let mut specs = self.specs();
        specs.retain(|spec| spec.role == Role::Trained);
        specs
    }

    fn inputs(&self, b: &Builder) -> Variables {
        let input = |spec: Spec| {
            let value = b.input(&spec.name, f32_shape(&spec.dims));
            (spec.name, value)
        };
        Variables::new(self.specs().into_iter().map(input))
    }

    /// Features [B, T * D] to logits [B, K, C].
    fn logits(&self, b: &Builder, variables: &Variables, mode: Mode, x: Value) -> Result<Value> {
        let site = Site::new(b, variables, DType::F32, mode);
        let x = match self.batch_norm {
            true => batch_norm(&site.at("norm"), x)?,
            false => x,
        };
        let _scope = b.scope("head");
        let [t, r, c, d] = [self.taps, self.rates, self.classes, self.dim];
        let x_btd = b.reshape(x, &[x.dim(0), t, d])?;
        let weight_trcd = b.reshape(variables.get("head.weight")?, &[t, r, c, d])?;
        let each = (&[1][..], &[0][..]);
        let products_tbrc = b.dot_general(x_btd, weight_trcd, each, (&[2], &[3]))?;
        let products_btrc = b.transpose(products_tbrc, &[1, 0, 2, 3])?;
        let products_bkc = b.reshape(products_btrc, &[x.dim(0), t * r, c])?;
        b.add(products_bkc, variables.get("head.bias")?)
    }
}

/// The probe's augmentation: random resized crops of at least `crop_min` of a
/// picture's area, and flips, normalised as in pre-training.
pub fn augmentation(config: &RunConfig, crop_min: f64) -> Augment {
    let Augment { mean, std, .. } = config.augment;
    Augment {
        crop_min,
        jitter_p: 0.0,
        gray_p: 0.0,
        blur_p: [0.0; 2],
        solarize_p: [0.0; 2],
        mean,
        std,
        ..Augment::default()
    }
}

/// One step on `batch` pictures. Arguments: the state, which is the variables
/// of [`Probe::specs`] and a momentum buffer for each trained one; for crops
/// the backbone's variables, `crops` (u8 [B, S, S, 3]) and `augment` (f32
/// [B, COLUMNS]), else `features` (f32 [B, T * D]); `labels` (i32 [B], each a
/// class); `lr` (f32 [R]). Results: the new state and `metrics`: for each
/// classifier the batch's mean loss, then for each the percentage that was right,
/// both before the update.
pub fn build(probe: &Probe, batch: usize, source: Source) -> Result<Program> {
    let b = Builder::new();
    let variables = probe.inputs(&b);
    let specs = probe.specs();
    let trained = probe.trained();
    let old = |spec: &Spec| variables.get(&spec.name);
    let parameters: Vec<Value> = trained.iter().map(old).collect::<Result<_>>()?;
    let buffer = |spec: &Spec| b.input(buffer_name(spec), f32_shape(&spec.dims));
    let buffers: Vec<Value> = trained.iter().map(buffer).collect();

    let x = match source {
        Source::Features => b.input("features", f32_shape(&[batch, probe.taps * probe.dim])),
        Source::Crops(config, augmentation, taps) => {
            let frozen = backbone_inputs(&b, config);
            let side = config.model.image_size;
            let crops = b.input("crops", Shape::new(DType::U8, &[batch, side, side, 3]));
            let rows = b.input("augment", f32_shape(&[batch, COLUMNS]));
            let x = augment::augment(&b, crops, rows, augmentation, 0)?;
            backbone(&b, config, &frozen, taps, x)?
        }
    };
    let labels = b.input("labels", Shape::new(DType::I32, &[batch]));
    let lr = b.input("lr", f32_shape(&[probe.rates]));

    let classifiers = probe.classifiers();
    let logits_bkc = probe.logits(&b, &variables, Mode::Train, x)?;
    let labels_bk = b.broadcast_in_dim(labels, &[batch, classifiers], &[0])?;
    let rows = batch * classifiers;
    let losses = cross_entropies(
        &b,
        b.reshape(logits_bkc, &[rows, probe.classes])?,
        b.reshape(labels_bk, &[rows])?,
    )?;
    let losses_k = b.mean(b.reshape(losses, &[batch, classifiers])?, &[0])?;
    let lr_tr = b.broadcast_in_dim(lr, &[probe.taps, probe.rates], &[1])?;
    let lr_k = b.reshape(lr_tr, &[classifiers])?;
    // A classifier has part in its own loss only: the gradient of their sum
    // is each one's own.
    let gradients = gradients(&b, b.sum_all(losses_k)?, &parameters)?;

    let mut new_buffers = Vec::new();
    for (i, spec) in trained.iter().enumerate() {
        let _scope = b.scope(format!("optimizer.{}", spec.name));
        let rule = Sgd {
            momentum: MOMENTUM,
            pace: Pace {
                lr: b.broadcast_in_dim(lr_k, &spec.dims, &[0])?,
                weight_decay: 0.0,
            },
        };
        let (p, buffer) = rule.update(&b, parameters[i], gradients[i], buffers[i])?;
        variables.set(&spec.name, p);
        new_buffers.push((buffer_name(spec), buffer));
    }
    let renewed = |spec: &Spec| Ok((spec.name.clone(), variables.get(&spec.name)?));
    let mut state: Vec<(String, Value)> = specs.iter().map(renewed).collect::<Result<_>>()?;
    state.extend(new_buffers);
    for (name, value) in &state {
        b.output(name, *value);
        b.donate(name, name)?;
    }
    let predicted_bk = b.argmax(logits_bkc, 2)?;
    let right_bk = b.compare(Comparison::Eq, predicted_bk, labels_bk)?;
    let right_k = b.mean(b.convert(right_bk, DType::F32)?, &[0])?;
    let metrics = b.concatenate(&[losses_k, b.scale(right_k, 100.0)?], 0)?;
    b.output("metrics", metrics);
    let names = |what: &'static str| (0..classifiers).map(move |k| format!("{what}.{k}"));
    Ok(Program {
        name: "probe_step",
        graph: b.finish()?,
        mesh: None,
        state: state.len(),
        metrics: names("loss").chain(names("top1")).collect(),
    })
}

/// The classes that the classifiers say. Arguments: the variables of
/// [`Probe::specs`], then `features`, f32 [B, T * D]. Result: `predicted`, i32
/// [B, K].
pub fn predict(probe: &Probe, batch: usize) -> Result<Program> {
    let b = Builder::new();
    let variables = probe.inputs(&b);
    let x = b.input("features", f32_shape(&[batch, probe.taps * probe.dim]));
    let logits_bkc = probe.logits(&b, &variables, Mode::Evaluate, x)?;
    b.output("predicted", b.argmax(logits_bkc, 2)?);
    Ok(Program {
        name: "probe_predict",
        graph: b.finish()?,
        mesh: None,
        state: 0,
        metrics: Vec::new(),
    })
}

/// The state before the first step, in the program's order.
pub fn initial_state(probe: &Probe, seed: u64) -> Vec<HostArray> {
    let one = Probe {
        taps: 1,
        rates: 1,
        ..*probe
    };
    let mut state: Vec<HostArray> = Vec::new();
    for (spec, single) in probe.specs().iter().zip(one.specs()) {
        let copies = spec.elements() / single.elements();
        let values = materialise(&single, seed).repeat(copies);
        state.push(HostArray::f32(&spec.name, &spec.dims, &values));
    }
    let zeros = |spec: &Spec| HostArray::zeros(buffer_name(spec), f32_shape(&spec.dims));
    state.extend(probe.trained().iter().map(zeros));
    state
}

fn buffer_name(spec: &Spec) -> String {
    format!("optimizer.{}.{}", Sgd::SLOTS[0], spec.name)
}

fn f32_shape(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

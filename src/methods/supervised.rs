//! Training with labels: a linear classifier on the backbone's features, all of
//! it trained.
//!
//! With p_i the softmax of the logits of picture i, y_i its label, s its share
//! in the mixture with picture j, the one opposite in the batch, e the label
//! smoothing and C the classes:
//!
//! ```text
//! t_i  = s onehot(y_i) + (1 - s) onehot(y_j)       j = B - 1 - i
//! loss = mean_i -sum_c ((1 - e) t_ic + e / C) log p_ic
//! ```
//!
//! as DeiT's recipe has it (Touvron et al. 2021): mixup (Zhang et al. 2018) and
//! CutMix (Yun et al. 2019) in the pictures and the targets, smoothed labels
//! (Szegedy et al. 2016), stochastic depth (Huang et al. 2016).

use super::siamese::BASE;
use super::{Forward, Method, Pictures, Step, never_held, nothing_to_prepare};
use crate::config::RunConfig;
use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, GraphError, Result, Value};
use crate::models::{self, Trunk, compute_dtype, projector_name, vit};
use crate::nn::{Init, Mode, Site, Spec, linear, linear_specs, log_sum_exp, of_class, under};

pub(super) const METHOD: Method = Method {
    specs,
    prepare: nothing_to_prepare,
    forward,
    chance_loss: |config| (classes(config) as f64).ln(),
    held_steps: never_held,
};

fn classes(config: &RunConfig) -> usize {
    config.method.projector.out
}

/// The backbone and the classifier, under timm's and torchvision's names.
fn specs(config: &RunConfig) -> Vec<Spec> {
    let model = &config.model;
    let mut specs = models::specs(model);
    // Near zero, so that all classes are equally likely at first (DeiT: 0.02).
    let init = Init::Normal(0.02);
    let classifier = linear_specs(model.features(), classes(config), true, init);
    specs.extend(under(projector_name(model), classifier));
    under(BASE, specs).collect()
}

fn forward(step: &Step) -> Result<Forward> {
    let (b, config) = (step.b, step.config);
    let (Some(given), Pictures::Whole(pictures)) = (step.supervision, step.pictures) else {
        let reason = "training with labels needs labels, and the batch whole".to_owned();
        return Err(GraphError::Invalid(reason));
    };
    if let Some(scales) = given.drop_path {
        put_scales(step, scales)?;
    }
    let model = &config.model;
    let trunk = Trunk {
        lowering: step.lowering,
        differentiable: true,
        views: 1,
        drop_path: given.drop_path.is_some(),
    };
    let compute = compute_dtype(model.compute_dtype);
    let site = Site::new(b, step.variables, compute, Mode::Train).at(BASE);
    let features = models::backbone(&site, model, trunk, pictures)?;
    let logits = class_logits(&site, config, features)?;

    let _scope = b.scope("loss");
    let smoothing = config.method.supervised.as_ref();
    let smoothing = smoothing.map_or(0.0, |supervised| supervised.label_smoothing);
    let right = b.compare(Comparison::Eq, b.argmax(logits, 1)?, given.labels)?;
    let right = b.mean(b.convert(right, DType::F32)?, &[0])?;
    Ok(Forward {
        loss: mixed_cross_entropy(b, logits, given.labels, given.share, smoothing)?,
        features: b.convert(features, DType::F32)?,
        metrics: vec![("train_top1", b.scale(right, 100.0)?)],
    })
}

/// Features [B, D] to logits, f32 [B, classes], by the classifier at the encoder's
/// site.
pub fn class_logits(site: &Site, config: &RunConfig, features: Value) -> Result<Value> {
    let features = site.b.convert(features, site.compute)?;
    let logits = linear(&site.at(projector_name(&config.model)), features)?;
    site.b.convert(logits, DType::F32)
}

/// Makes each block find the scales of its branches, of [B, blocks, 2].
fn put_scales(step: &Step, scales: Value) -> Result<()> {
    let b = step.b;
    let [batch, blocks, _] = *scales.dims() else {
        let reason = format!(
            "scales of branches are {}, not [B, blocks, 2]",
            scales.shape
        );
        return Err(GraphError::Invalid(reason));
    };
    for block in 0..blocks {
        let of_block = b.slice_axis(scales, 1, block, block + 1)?;
        for (i, half) in ["attn", "mlp"].into_iter().enumerate() {
            let one = b.reshape(b.slice_axis(of_block, 2, i, i + 1)?, &[batch])?;
            let name = format!("{BASE}.blocks.{block}.{half}.{}", vit::DROP_PATH);
            step.variables.set(&name, one);
        }
    }
    Ok(())
}

/// The loss above: `logits` f32 [B, C], `labels` i32 [B], `share` f32 [].
pub fn mixed_cross_entropy(
    b: &Builder,
    logits: Value,
    labels: Value,
    share: Value,
    smoothing: f64,
) -> Result<Value> {
    // log p_c = shifted_c - total, of which all parts of the loss are means.
    let (shifted, total) = log_sum_exp(b, logits)?;
    let less = |part: Value| b.mean(b.sub(total, part)?, &[0]);
    let own = less(of_class(b, shifted, labels)?)?;
    let other = less(of_class(b, shifted, b.reverse(labels, &[0])?)?)?;
    let rest = b.sub(b.full_like(share, 1.0)?, share)?;
    let of_labels = b.add(b.mul(own, share)?, b.mul(other, rest)?)?;
    if smoothing == 0.0 {
        return Ok(of_labels);
    }
    let even = less(b.mean(shifted, &[1])?)?;
    b.add(
        b.scale(of_labels, 1.0 - smoothing)?,
        b.scale(even, smoothing)?,
    )
}

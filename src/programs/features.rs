//! Features of pictures: the base encoder in evaluation form.

use super::{Program, mesh};
use crate::config::RunConfig;
use crate::graph::{Builder, DType, Result, Shape, Sharding, Value};
use crate::models::{self, Trunk, compute_dtype};
use crate::nn::{Mode, Site, Variables, l2_normalize, under};

/// How long features are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// 1: L2-normalised, for cosines.
    One,
    /// As the final norm leaves them, for a linear classifier.
    Own,
}

/// Arguments: the backbone's variables (`base_encoder.*` without its head),
/// then `pictures`, u8 [batch, S, S, 3], without augmentation. Result:
/// `features`, f32 [batch, dim]. BN has its running statistics.
pub fn build(config: &RunConfig, batch: usize, length: Length) -> Result<Program> {
    let b = Builder::new();
    let variables = backbone_inputs(&b, config);
    let side = config.model.image_size;
    let shape = Shape::new(DType::U8, &[batch, side, side, 3]);
    let pictures = b.sharded_input("pictures", shape, Some(Sharding::split(4, 0)));
    let x = super::augment::normalise(&b, pictures, config.augment.mean, config.augment.std)?;
    let x = backbone(&b, config, &variables, x)?;
    let features = match length {
        Length::One => l2_normalize(&b, x)?,
        Length::Own => x,
    };
    b.sharded_output("features", features, Some(Sharding::replicated(2)));
    Ok(Program {
        name: "features",
        graph: b.finish()?,
        mesh: mesh(config),
        state: 0,
        metrics: Vec::new(),
    })
}

/// The backbone's variables as arguments: `base_encoder.*` without its head.
pub(super) fn backbone_inputs(b: &Builder, config: &RunConfig) -> Variables {
    let specs = under("base_encoder", models::specs(&config.model));
    Variables::new(specs.map(|spec| {
        let shape = Shape::new(DType::F32, &spec.dims);
        let sharding = Sharding::replicated(shape.rank());
        let value = b.sharded_input(&spec.name, shape, Some(sharding));
        (spec.name, value)
    }))
}

/// Normalised pictures [B, 3, S, S] to features, f32 [B, dim], in evaluation
/// form.
pub(super) fn backbone(
    b: &Builder,
    config: &RunConfig,
    variables: &Variables,
    x: Value,
) -> Result<Value> {
    let compute = compute_dtype(config.model.compute_dtype);
    let site = Site::new(b, variables, compute, Mode::Evaluate);
    let x = models::backbone(&site.at("base_encoder"), &config.model, Trunk::PLAIN, x)?;
    b.convert(x, DType::F32)
}

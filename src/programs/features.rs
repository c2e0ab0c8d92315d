//! What the base encoder in evaluation form makes of pictures: features, or the
//! logits of a classifier on them.

use super::{Program, mesh};
use crate::config::RunConfig;
use crate::graph::{Builder, DType, Result, Shape, Sharding, Value};
use crate::methods;
use crate::models::{self, Tap, Trunk, compute_dtype};
use crate::nn::{Mode, Site, Spec, Variables, l2_normalize, under};

/// What is made of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Features of length 1, for cosines.
    Unit,
    /// Features as the final norm leaves them, for a linear classifier.
    Plain,
    /// Features of a ViT at some places, side by side.
    Taps(Vec<Tap>),
    /// Those classes' logits that training with labels has learned.
    Logits,
}

impl Form {
    /// Numbers of a picture.
    pub fn width(&self, config: &RunConfig) -> usize {
        match self {
            Self::Unit | Self::Plain => config.model.features(),
            Self::Taps(taps) => taps.len() * config.model.features(),
            Self::Logits => config.method.projector.out,
        }
    }

    /// Where features are read; nowhere: at the model's output.
    fn taps(&self) -> &[Tap] {
        match self {
            Self::Taps(taps) => taps,
            Self::Unit | Self::Plain | Self::Logits => &[],
        }
    }
}

/// Arguments: the backbone's variables (`base_encoder.*` without its head, but
/// for logits), then `pictures`, u8 [batch, S, S, 3], without augmentation.
/// Result: `features`, f32 [batch, [`Form::width`]]. BN has its running
/// statistics.
pub fn build(config: &RunConfig, batch: usize, form: Form) -> Result<Program> {
    let b = Builder::new();
    let variables = match form {
        Form::Unit | Form::Plain | Form::Taps(_) => backbone_inputs(&b, config),
        Form::Logits => inputs(&b, methods::specs(config)),
    };
    let side = config.model.image_size;
    let shape = Shape::new(DType::U8, &[batch, side, side, 3]);
    let pictures = b.sharded_input("pictures", shape, Some(Sharding::split(4, 0)));
    let x = super::augment::normalise(&b, pictures, config.augment.mean, config.augment.std)?;
    let x = backbone(&b, config, &variables, form.taps(), x)?;
    let features = match form {
        Form::Unit => l2_normalize(&b, x)?,
        Form::Plain | Form::Taps(_) => x,
        Form::Logits => methods::class_logits(&site(&b, config, &variables), config, x)?,
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
    inputs(b, under("base_encoder", models::specs(&config.model)))
}

fn inputs(b: &Builder, specs: impl IntoIterator<Item = Spec>) -> Variables {
    Variables::new(specs.into_iter().map(|spec| {
        let shape = Shape::new(DType::F32, &spec.dims);
        let sharding = Sharding::replicated(shape.rank());
        let value = b.sharded_input(&spec.name, shape, Some(sharding));
        (spec.name, value)
    }))
}

/// Normalised pictures [B, 3, S, S] to features in evaluation form: the model's
/// own, f32 [B, dim], or those at some places of it, [B, taps * dim].
pub(super) fn backbone(
    b: &Builder,
    config: &RunConfig,
    variables: &Variables,
    taps: &[Tap],
    x: Value,
) -> Result<Value> {
    let site = site(b, config, variables);
    let x = match taps {
        [] => models::backbone(&site, &config.model, Trunk::PLAIN, x)?,
        _ => models::tapped(&site, &config.model, Trunk::PLAIN, taps, x)?,
    };
    b.convert(x, DType::F32)
}

/// The base encoder in evaluation form.
pub(super) fn site<'a>(b: &'a Builder, config: &RunConfig, variables: &'a Variables) -> Site<'a> {
    let compute = compute_dtype(config.model.compute_dtype);
    Site::new(b, variables, compute, Mode::Evaluate).at("base_encoder")
}

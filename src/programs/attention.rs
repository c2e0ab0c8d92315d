//! How the class token of the base encoder looks at pictures.

use super::features::{backbone_inputs, site};
use super::{Program, mesh};
use crate::config::RunConfig;
use crate::graph::{Builder, DType, GraphError, Result, Shape};
use crate::models::{self, vit};

/// Arguments: the backbone's variables as for the features, then `pictures`, u8
/// [batch, S, S, 3], without augmentation. Result: `weights`, f32 [batch, heads,
/// T], those of the last block's attention with which the class token sums up
/// the tokens, itself first, then the patches row by row; each head's sum to 1.
///
/// # Errors
/// For a backbone without a class token.
pub fn build(config: &RunConfig, batch: usize) -> Result<Program> {
    let b = Builder::new();
    let refusal = |reason: &str| GraphError::Shape {
        op: "attention of the class token".into(),
        scope: b.scope_path(),
        operands: String::new(),
        reason: reason.into(),
    };
    if let Some(reason) = models::without_class_token(&config.model) {
        return Err(refusal(reason));
    }
    let model = config.model.vit();
    let model = model.ok_or_else(|| refusal("only a ViT has one"))?;
    let variables = backbone_inputs(&b, config);
    let side = config.model.image_size;
    let pictures = b.input("pictures", Shape::new(DType::U8, &[batch, side, side, 3]));
    let x = super::augment::normalise(&b, pictures, config.augment.mean, config.augment.std)?;
    let weights = vit::class_weights(&site(&b, config, &variables), model, x)?;
    b.output("weights", weights);
    Ok(Program {
        name: "attention",
        graph: b.finish()?,
        mesh: mesh(config),
        state: 0,
        metrics: Vec::new(),
    })
}

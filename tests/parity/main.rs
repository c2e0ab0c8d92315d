//! Our numbers against references written from the equations in PyTorch and
//! JAX (tools/reference), on a real plugin in f32. See tests/fixtures/README.md.

mod attention;
mod backbones;
mod by_hand;
mod finetune;
mod fixture;
mod layers;
mod matrix;
mod methods;
mod optimizer;
mod probe;
mod resnet50;
mod step;
#[path = "../support/mod.rs"]
mod support;
mod training;
mod vit;

//! Layers: functions that add ops to a graph.
//!
//! A layer finds its parameters by name in [`Variables`], through the
//! [`Site`] it is applied at, and leaves new values of its buffers there.
//! What variables a layer has is said by its `specs` function, next to the
//! layer, as [`Spec`]s: name, shape, start, role. Names and layouts are those
//! of PyTorch and timm, so that import and export only rename prefixes.
//!
//! Parameters are f32; a layer casts them to the type of the activations
//! where it uses them. Statistics and softmax are f32 whatever that type is.

mod attention;
mod conv;
mod init;
mod linear;
mod loss;
mod mlp;
mod norm;
mod patch;
mod position;
mod variables;

pub use attention::{
    attention, attention_by, attention_specs, class_attention, class_attention_weights,
};
pub use conv::{conv, conv_specs, max_pool, mean_pool, relu};
pub use init::{Init, materialise};
pub use linear::{linear, linear_specs};
pub use loss::{cross_entropies, cross_entropy, l2_normalize, log_sum_exp, of_class, relative_std};
pub use mlp::{gelu, mlp, mlp_specs};
pub use norm::{batch_norm, batch_norm_of_views, batch_norm_specs, layer_norm, layer_norm_specs};
pub use patch::{patch_embed, patch_embed_specs, weight_norm_specs};
pub use position::sincos_2d;
pub use variables::{Mode, Site, Variables};

/// What a variable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The optimizer changes it.
    Trained,
    /// Part of the model, never changed.
    Frozen,
    /// A running statistic.
    Buffer,
}

/// A variable that a layer or model has. All are f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    pub dims: Vec<usize>,
    pub init: Init,
    pub role: Role,
}

impl Spec {
    pub fn trained(name: impl Into<String>, dims: &[usize], init: Init) -> Self {
        Self {
            name: name.into(),
            dims: dims.to_vec(),
            init,
            role: Role::Trained,
        }
    }

    /// The same with another role.
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// `specs` with `prefix.` before each name.
pub fn under(prefix: &str, specs: Vec<Spec>) -> impl Iterator<Item = Spec> {
    specs.into_iter().map(move |spec| Spec {
        name: format!("{prefix}.{}", spec.name),
        ..spec
    })
}

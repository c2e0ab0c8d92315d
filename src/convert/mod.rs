//! Weights of other tools in, weights for other tools out.
//!
//! | module | what it does |
//! |---|---|
//! | `pickle`, `torch_file`, `source` | files as lists of tensors; every byte of them is distrusted, and nothing of them is executed |
//! | `folder` | runs, checkpoints, and folders with a description |
//! | `names` | the layouts: which tensor is which |
//! | `infer`, `weights` | the model that they are of, and that they are all of it |
//! | `positions` | position embeddings for pictures of another size |
//! | `write`, `onnx` | the formats of other tools |
//! | `record`, `parity` | what weights do not say, and features to compare with |
//!
//! Invariants: a tensor of the backbone that is missing, left over or of
//! another shape stops a conversion, and so does a number of heads that nobody
//! knows; elements go through unchanged (f16 and bf16 become f32, exactly).

mod folder;
mod infer;
mod names;
mod onnx;
mod parity;
pub mod pickle;
mod positions;
mod record;
mod safetensors_file;
mod source;
mod torch_file;
mod verify;
mod weights;
mod write;

pub use folder::config_of;
pub use infer::Hints;
pub use names::Layout;
pub use parity::{TOLERANCE, features, pictures};
pub use positions::resample;
pub use source::{Entry, Source};
pub use verify::{Verified, verify};
pub use weights::{Found, Weights, read};
pub use write::{Target, write};

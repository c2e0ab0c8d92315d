//! Pictures from disk to batches.
//!
//! The data's way: [`Dataset`] knows what pictures there are; [`Sampler`]
//! says which of them a step sees; [`Loader`] decodes each once, crops it
//! twice and draws the parameters of everything that happens on the device
//! ([`augment`]); [`EvalBatches`] gives every picture once, unaugmented.
//!
//! Invariants:
//! - What a step sees is a pure function of (data, configuration, seed,
//!   step): never of the number of workers, hosts or devices, nor of time.
//! - Files are hostile: sizes are bounded before memory is taken, and nothing
//!   in a file can make the process panic.
//! - Nothing here knows of graphs, models or devices.

pub mod augment;
pub mod crop;
pub mod decode;
pub mod get;
pub mod mat;
pub mod rand_augment;
pub mod resize;

mod corrupt;
mod dataset;
mod eval;
mod loader;
mod pool;
mod sampler;
mod sources;
mod subset;

pub use corrupt::{Corrupt, CorruptLog};
pub use dataset::{DataSpec, Dataset};
pub use decode::Picture;
pub use eval::{EvalBatch, EvalBatches, eval_batches, eval_batches_of};
pub use loader::{Batch, Loader, LoaderConfig};
pub use pool::Pool;
pub use sampler::Sampler;
pub use sources::synthetic::Spec as SyntheticSpec;
pub use subset::hold_out;

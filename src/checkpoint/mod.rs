//! State on disk: written atomically, checked on load.
//!
//! A checkpoint is a folder `checkpoints/step-00000024` with two files:
//! `state.safetensors`, every tensor of the train state, and `manifest.json`,
//! what wrote it and the SHA-256 of the state file. Equal state makes an equal
//! state file, to the byte: no clock, no host name and no map order is in it.
//!
//! What holds, on a POSIX file system with one writer (the [`RunLock`] sees to
//! that):
//!
//! | what happens while saving | what is found afterwards |
//! |---|---|
//! | an error (disk full, no permission) | the earlier checkpoints, untouched; the temporary folder is removed |
//! | the process is killed | the earlier checkpoints; the next [`RunDir::lock`] removes the temporary folder |
//! | the power fails | the same: files and folder are synced before the rename, the parent after it |
//! | a step is saved twice | one folder: the old one is kept if its content is the same and intact, else replaced |
//!
//! A folder that bears its final name is thus whole. What happens to it later
//! (a flipped bit, a copy cut short) is found by [`load`].
//!
//! This module knows nothing of graphs, plugins or configurations: a tensor is
//! a name, a type, a shape and bytes.

pub mod atomic;
mod lock;
mod manifest;
mod reader;
mod retention;
mod run_dir;
mod saver;
mod state;
mod time;
mod writer;

pub use lock::RunLock;
pub use manifest::{FORMAT_VERSION, Manifest, Origin, host_name};
pub use reader::{Loaded, list, load, load_latest, open, verify};
pub use retention::Retention;
pub use run_dir::RunDir;
pub use safetensors::Dtype;
pub use saver::Saver;
pub use state::{HostTensor, Snapshot};
pub use time::utc;
pub use writer::{Saved, save};

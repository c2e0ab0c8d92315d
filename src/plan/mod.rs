//! What a run needs on devices that need not be there: memory, time, network,
//! known on a laptop before anyone books a machine.
//!
//! [`Target`] names the devices, [`Machine`] is their compiler, [`compile`]
//! gives a [`Report`]. Compilers tell memory exactly; every time is an
//! estimate, and says whose.

mod buffers;
mod collectives;
mod compile;
mod estimate;
mod hardware;
mod hlo;
mod refusal;
mod report;
mod target;

pub use buffers::Buffers;
pub use collectives::{Collective, Place, Total, by_kind, by_place, collectives};
pub use compile::{AFTER_PARTITIONING, compile, partitioned};
pub use hardware::Hardware;
pub use report::{Alternative, Report};
pub use target::{Machine, Target};

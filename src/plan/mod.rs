//! What a run needs on devices that need not be there: memory, time, network,
//! known on a laptop before anyone books a machine.
//!
//! [`Target`] names the devices, [`Machine`] is their compiler, [`compile`]
//! gives a [`Report`], [`plan`] the fastest settings that fit. Compilers tell memory exactly; every time is an
//! estimate, and says whose.

mod buffers;
mod collectives;
mod compile;
mod estimate;
mod facts;
mod hardware;
mod hlo;
mod options;
mod refusal;
mod report;
mod search;
mod target;

pub use buffers::Buffers;
pub use collectives::{Collective, Place, Total, by_kind, by_place, collectives};
pub use compile::{compile, model_flops, report};
pub use facts::{AFTER_PARTITIONING, partitioned};
pub use hardware::{Hardware, peak_flops};
pub use options::{check_platform, step_options};
pub use report::{Alternative, Report};
pub use search::{Plan, Trial, plan, recommended};
pub use target::{Machine, Target};

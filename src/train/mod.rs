//! The loop and what it needs.

mod pictures;

pub use pictures::Pictures;

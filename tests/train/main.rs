//! `xla-moco train`, as its user sees it: the real binary on tiny models.
//!
//! Whatever breaks a run off, the state in the end is that of [`unbroken`], to
//! the byte.

mod breaks;
mod damage;
mod refusals;
mod results;
mod support;
mod unhealthy;

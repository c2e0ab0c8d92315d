//! The distinctions of errors that the exit code needs.

use std::fmt;

/// Bad usage, configuration or data: the user can mend it, and the process
/// exits with code 2. Every error but this and [`Unhealthy`] is a failure of
/// the run: code 1.
///
/// It travels inside [`anyhow::Error`]; `main` looks for it in the chain.
#[derive(Debug)]
pub struct BadInput(pub String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// The run works, but its verdict is collapsed, diverged or stalled at chance:
/// code 3. Travels as [`BadInput`] does.
#[derive(Debug)]
pub struct Unhealthy(pub String);

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unhealthy {}

/// Builds an [`anyhow::Error`] that carries [`BadInput`]. The message says
/// what was expected, what was found, and what to do.
#[macro_export]
macro_rules! bad_input {
    ($($arg:tt)*) => {
        ::anyhow::Error::new($crate::error::BadInput(format!($($arg)*)))
    };
}

//! One thin file per subcommand.

pub mod data;

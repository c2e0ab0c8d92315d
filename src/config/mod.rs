//! JSON to a checked run configuration.

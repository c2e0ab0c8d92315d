//! Self-supervised methods.

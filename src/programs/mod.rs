//! What gets compiled.

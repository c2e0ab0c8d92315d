//! Pictures from disk to batches.

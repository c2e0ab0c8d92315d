//! What gets compiled.

pub mod knn_queue;

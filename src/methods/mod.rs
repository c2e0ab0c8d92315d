//! Self-supervised methods: each says what variables it has and how the loss
//! of two views comes about.

pub mod moco_v3;

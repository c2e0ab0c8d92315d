//! What a run tells: metrics, TensorBoard, terminal.

//! Layers: functions that add ops to a graph.

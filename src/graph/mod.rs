//! The compiler frontend: shapes, ops, reverse mode, StableHLO. Pure: no IO, no PJRT, no clock, no randomness.

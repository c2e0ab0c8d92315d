//! The runtime: PJRT plugins through their C API.

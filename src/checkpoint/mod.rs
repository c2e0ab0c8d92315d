//! State on disk: written atomically, checked on load.

//! What a configuration's pictures decide about its program.

use crate::config::RunConfig;
use crate::programs::train_step::TrainingSet;
use crate::train::Pictures;

/// Opens the training pictures. Where they cannot be opened, says so, and gives
/// none: what is shown or written then is a step without the kNN monitor.
pub(super) fn pictures(config: &RunConfig) -> Option<Pictures> {
    match Pictures::of(config) {
        Ok(pictures) => Some(pictures),
        Err(error) => {
            tracing::warn!(
                "the training pictures cannot be opened, so the step is shown without the kNN \
                 monitor, which `train` adds for labelled pictures; give them with --data ({error:#})"
            );
            None
        }
    }
}

/// The set of a step without monitor.
pub(super) const UNKNOWN: TrainingSet = TrainingSet {
    images: 0,
    classes: 0,
};

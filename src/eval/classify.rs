//! Classification of held-out pictures by the classifier that training with
//! labels has learned: centre crop, evaluation form.

use std::sync::Arc;

use anyhow::Result;

use super::extract::{Extractor, Features, Pictures};
use super::vote::Tally;
use crate::bad_input;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::pjrt::{Buffer, Client, CompileCache};
use crate::programs::features::Form;

/// Test pictures, and the program that makes logits of them.
pub struct Classifier {
    extractor: Extractor,
    test: Pictures,
}

impl Classifier {
    /// Compiles the program for the client's first device. `test` is classified
    /// as far as `eval.query_limit` goes; its labels must be those of the classes
    /// that were trained on.
    ///
    /// # Errors
    /// [`bad_input!`] if it is not labelled; the compiler's.
    pub fn new(
        client: &Arc<Client>,
        config: &RunConfig,
        test: &Arc<Dataset>,
        cache: Option<&CompileCache>,
    ) -> Result<Self> {
        if !test.is_labelled() {
            return Err(bad_input!(
                "the test pictures have no labels, or all the same one; a classifier is tested on \
                 pictures in at least two class folders"
            ));
        }
        let limit = config.eval.query_limit;
        Ok(Self {
            extractor: Extractor::new(client, config, Form::Logits, cache)?,
            test: Pictures::new(test, limit, config.data.worker_count(), false),
        })
    }

    /// Classifies them. `encoder` has the state's `base_encoder.*` on the client's
    /// first device.
    ///
    /// # Errors
    /// If a variable is missing, too many pictures are corrupt, or the device
    /// fails.
    pub fn evaluate(&self, encoder: &[(&str, &Buffer)]) -> Result<Tally> {
        let logits = self.extractor.run(encoder, &self.test)?;
        let predicted = highest(&logits);
        let pairs = logits.labels.iter().copied().zip(predicted);
        Ok(Tally::of(pairs, self.test.data.classes()))
    }
}

/// The class of the highest logit of each row, the first of equal ones.
fn highest(logits: &Features) -> Vec<u32> {
    let rows = logits.bytes.chunks_exact(4 * logits.dim);
    rows.map(|row| {
        let values = row.as_chunks().0.iter().copied().map(f32::from_le_bytes);
        let mut best = (0, f32::NEG_INFINITY);
        for (class, value) in (0..).zip(values) {
            if value > best.1 {
                best = (class, value);
            }
        }
        best.0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_highest_logits_is_the_class() {
        let values = [0.5f32, 2.0, 2.0, -1.0, -3.0, -2.0, f32::NAN, 1.0, 0.0];
        let logits = Features {
            dim: 3,
            bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(),
            labels: vec![0; 3],
        };
        assert_eq!(highest(&logits), [1, 0, 1]);
    }
}

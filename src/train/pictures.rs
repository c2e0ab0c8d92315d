//! The pictures that a configuration names.

use std::sync::Arc;

use anyhow::Result;

use crate::config::{self, SYNTHETIC};
use crate::data::{DataSpec, Dataset};
use crate::programs::train_step::TrainingSet;

/// The training pictures, and the held-out ones that belong to them.
pub struct Pictures {
    pub train: Arc<Dataset>,
    /// None where there are none, or where labels tell nothing.
    pub test: Option<Arc<Dataset>>,
}

impl Pictures {
    /// Opens both. The held-out pictures are those of `data.test`, else those
    /// found beside the training pictures. Starts no thread.
    ///
    /// # Errors
    /// As [`Dataset::open`], [`Dataset::align_labels`].
    pub fn open(data: &config::Data) -> Result<Self> {
        let at = |path: &str| DataSpec {
            path: path.to_owned(),
            exif_orientation: data.exif,
        };
        let s = &data.synthetic;
        let synthetic = |images: usize| {
            at(&format!(
                "{SYNTHETIC}:K={},N={images},px={},seed={}",
                s.classes, s.size, s.seed
            ))
        };
        let spec = match data.is_synthetic() {
            true => synthetic(s.images),
            false => at(&data.path),
        };
        let train = Dataset::open_train(&spec)?;
        let test = match &data.test {
            _ if !train.is_labelled() => None,
            Some(path) => {
                let mut test = Dataset::open(&at(path))?;
                test.align_labels(train.classes())?;
                Some(test)
            }
            None if data.is_synthetic() && s.test_images == 0 => None,
            // A procedural set has a quarter as many test pictures.
            None if data.is_synthetic() => {
                Dataset::open_test(&synthetic(4 * s.test_images), &train)?
            }
            None => Dataset::open_test(&spec, &train)?,
        };
        Ok(Self {
            train: Arc::new(train),
            test: test.filter(Dataset::is_labelled).map(Arc::new),
        })
    }

    /// What the train step has to know of the training pictures.
    pub fn training_set(&self) -> TrainingSet {
        TrainingSet {
            images: self.train.len(),
            classes: match self.train.is_labelled() {
                true => self.train.classes().len(),
                false => 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Data;

    #[test]
    fn procedural_sets_have_the_sizes_that_the_configuration_says() {
        for (images, test_images) in [(100, 10), (16, 50), (64, 0)] {
            let mut data = Data::default();
            data.synthetic.images = images;
            data.synthetic.test_images = test_images;
            let pictures = Pictures::open(&data).unwrap();
            assert_eq!(pictures.train.len(), images);
            assert_eq!(pictures.test.map_or(0, |test| test.len()), test_images);
        }
    }
}

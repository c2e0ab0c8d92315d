//! The pictures that a configuration names.

use std::sync::Arc;

use anyhow::Result;

use crate::bad_input;
use crate::config::{self, RunConfig, SYNTHETIC};
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
        let Places { train, beside } = Places::of(data);
        let train = Dataset::open_train(&train)?;
        let test = match &data.test {
            _ if !train.is_labelled() => None,
            Some(path) => {
                let mut test = Dataset::open(&at(data, path))?;
                test.align_labels(train.classes())?;
                Some(test)
            }
            None if data.is_synthetic() && data.synthetic.test_images == 0 => None,
            None => Dataset::open_test(&beside, &train)?,
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

    /// Training with labels needs the classes that the configuration says.
    ///
    /// # Errors
    /// [`bad_input!`] for pictures of others, or without labels.
    pub fn check_classes(&self, config: &RunConfig) -> Result<()> {
        let Some(supervised) = &config.method.supervised else {
            return Ok(());
        };
        let (wanted, found) = (supervised.classes, self.train.classes().len());
        if !self.train.is_labelled() {
            return Err(bad_input!(
                "the training pictures have no labels, or all the same one; training with labels \
                 needs pictures in at least two class folders"
            ));
        }
        if wanted != found {
            return Err(bad_input!(
                "`method.supervised.classes` is {wanted}, and the training pictures have {found} \
                 classes; set it to {found} (--set method.supervised.classes={found})"
            ));
        }
        Ok(())
    }
}

/// A place, read as the configuration says.
pub fn at(data: &config::Data, path: &str) -> DataSpec {
    DataSpec {
        path: path.to_owned(),
        exif_orientation: data.exif,
    }
}

/// Where the pictures that a configuration names are.
pub struct Places {
    pub train: DataSpec,
    /// Where their test split is looked for.
    pub beside: DataSpec,
}

impl Places {
    pub fn of(data: &config::Data) -> Self {
        if !data.is_synthetic() {
            let [train, beside] = [at(data, &data.path), at(data, &data.path)];
            return Self { train, beside };
        }
        let s = &data.synthetic;
        let synthetic = |images: usize| {
            let (k, px, seed) = (s.classes, s.size, s.seed);
            at(
                data,
                &format!("{SYNTHETIC}:K={k},N={images},px={px},seed={seed}"),
            )
        };
        Self {
            train: synthetic(s.images),
            // A procedural set has a quarter as many test pictures.
            beside: synthetic(4 * s.test_images.max(1)),
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

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
    /// Labelled pictures whose features classify the held-out ones: the
    /// training pictures, or others where these have no labels.
    pub bank: Arc<Dataset>,
    /// None where there are none, or where labels tell nothing.
    pub test: Option<Arc<Dataset>>,
}

impl Pictures {
    /// Those of a run: [`Pictures::open`]; training with labels sees the bank.
    ///
    /// # Errors
    /// As [`Pictures::open`].
    pub fn of(config: &RunConfig) -> Result<Self> {
        let mut pictures = Self::open(&config.data)?;
        if config.method.supervised.is_some() {
            pictures.train = pictures.bank.clone();
        }
        Ok(pictures)
    }

    /// Opens them. The bank is `data.labelled`, else what was published with the
    /// training pictures; the held-out pictures are those of `data.test`, else
    /// those found beside the bank. Starts no thread.
    ///
    /// # Errors
    /// As [`Dataset::open`], [`Dataset::align_labels`].
    pub fn open(data: &config::Data) -> Result<Self> {
        let Places { train, beside } = Places::of(data);
        let (train, labelled) = Dataset::open_pretrain(&train)?;
        let train = Arc::new(train);
        let (bank, beside) = match &data.labelled {
            Some(path) => (Some(Dataset::open_train(&at(data, path))?), at(data, path)),
            None => (labelled, beside),
        };
        let bank = bank.map_or_else(|| train.clone(), Arc::new);
        let test = match &data.test {
            _ if !bank.is_labelled() => None,
            Some(path) => {
                let mut test = Dataset::open(&at(data, path))?;
                test.align_labels(bank.classes())?;
                Some(test)
            }
            None if data.labelled.is_none()
                && data.is_synthetic()
                && data.synthetic.test_images == 0 =>
            {
                None
            }
            None => Dataset::open_test(&beside, &bank)?,
        };
        Ok(Self {
            train,
            bank,
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
        let bare = (0..self.train.len()).filter(|i| self.train.label(*i).is_none());
        let bare = bare.count();
        if bare > 0 {
            return Err(bad_input!(
                "{bare} of the {} training pictures have no label; training with labels needs one \
                 of each: leave the others out",
                self.train.len()
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

    #[test]
    fn labelled_pictures_apart_from_the_training_pictures() {
        let root = tempfile::tempdir().unwrap();
        let picture = image::RgbImage::new(8, 8);
        picture.save(root.path().join("1.png")).unwrap();
        let mut data = Data {
            path: root.path().to_str().unwrap().to_owned(),
            ..Data::default()
        };
        let alone = Pictures::open(&data).unwrap();
        assert!(alone.test.is_none() && !alone.bank.is_labelled());
        data.labelled = Some("synthetic:K=3,N=40,px=8".into());
        let pictures = Pictures::open(&data).unwrap();
        let sizes = (pictures.train.len(), pictures.bank.len());
        assert_eq!((sizes, pictures.test.unwrap().len()), ((1, 40), 10));
        data.test = Some("synthetic:K=3,N=7,px=8".into());
        assert_eq!(Pictures::open(&data).unwrap().test.unwrap().len(), 7);
    }
}

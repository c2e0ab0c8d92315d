//! Pictures that cannot be decoded: counted, named, and only so many borne.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bad_input;

/// So many corrupt pictures are borne whatever the limit says.
const ALWAYS_BORNE: usize = 3;

/// A picture that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    pub id: u32,
    pub name: String,
    pub error: String,
    /// The name of the picture that stood in for it; `None` where it was
    /// left out.
    pub replacement: Option<String>,
}

/// The corrupt pictures seen so far, each once.
#[derive(Clone, Debug)]
pub struct CorruptLog {
    /// Largest share of the pictures seen.
    limit: f64,
    /// Pictures in the data.
    len: u64,
    /// Pictures seen, with repeats.
    seen: u64,
    pictures: BTreeMap<u32, Corrupt>,
}

impl CorruptLog {
    /// For data of `len` pictures, with at most `limit` of those seen (0..=1)
    /// corrupt, or three.
    pub fn new(len: usize, limit: f64) -> Self {
        Self {
            limit,
            len: len as u64,
            seen: 0,
            pictures: BTreeMap::new(),
        }
    }

    /// The pictures, by id.
    pub fn pictures(&self) -> Vec<Corrupt> {
        self.pictures.values().cloned().collect()
    }

    /// Counts `seen` further pictures, of which `corrupt` could not be
    /// decoded, and warns of each the first time.
    ///
    /// # Errors
    /// [`bad_input!`] if there are now too many.
    pub fn record(&mut self, seen: usize, corrupt: &[Corrupt]) -> Result<()> {
        self.seen += seen as u64;
        for picture in corrupt {
            let replacement = picture.replacement.as_deref();
            if self.pictures.insert(picture.id, picture.clone()).is_none() {
                tracing::warn!(
                    "corrupt picture {}: {}; {}",
                    picture.name,
                    picture.error,
                    replacement.map_or("left out".into(), |name| format!("replaced by {name}"))
                );
            }
        }
        // Each picture counts once however often it comes up, so what was
        // seen is at most the whole set.
        let distinct = self.seen.min(self.len);
        let borne = (self.limit * distinct as f64).max(ALWAYS_BORNE as f64);
        let Some((_, first)) = self.pictures.first_key_value() else {
            return Ok(());
        };
        if self.pictures.len() as f64 > borne {
            return Err(bad_input!(
                "{} of the {distinct} pictures seen are corrupt, more than the limit of {}%; \
                 for example {}: {}. Mend or remove them (`data check` lists them all), or \
                 raise the limit",
                self.pictures.len(),
                100.0 * self.limit,
                first.name,
                first.error
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrupt(id: u32) -> Corrupt {
        Corrupt {
            id,
            name: format!("{id}.jpg"),
            error: "cut short".into(),
            replacement: None,
        }
    }

    #[test]
    fn the_limit_is_a_share_of_distinct_pictures() {
        let mut log = CorruptLog::new(1000, 0.01);
        let first: Vec<_> = (0..10).map(corrupt).collect();
        log.record(1000, &first).unwrap();
        // The same ones again do not count again.
        log.record(1000, &first).unwrap();
        let error = log.record(1, &[corrupt(10)]).unwrap_err().to_string();
        assert!(error.contains("11 of the 1000"), "{error}");
        assert!(error.contains("limit of 1%"), "{error}");
        assert!(error.contains("0.jpg: cut short"), "{error}");
        assert_eq!(log.pictures().len(), 11);
    }

    #[test]
    fn a_few_are_borne_even_at_the_start() {
        let mut log = CorruptLog::new(100, 0.0);
        log.record(4, &[corrupt(0), corrupt(1), corrupt(2)])
            .unwrap();
        assert!(log.record(1, &[corrupt(3)]).is_err());
    }
}

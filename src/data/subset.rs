//! Parts of a data set.

use std::sync::Arc;

use anyhow::Result;

use super::Picture;
use super::dataset::Dataset;
use super::eval::choose;
use super::sources::{Opened, Source};
use crate::bad_input;

/// Some pictures of a data set, in its order.
struct Subset {
    data: Arc<Dataset>,
    ids: Vec<u32>,
}

impl Subset {
    fn id(&self, index: usize) -> usize {
        self.ids[index] as usize
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn kind(&self) -> String {
        format!("{} of {}", self.data.kind(), self.data.len())
    }

    fn name(&self, index: usize) -> String {
        self.data.name(self.id(index))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.data.label(self.id(index))
    }

    fn size(&self, index: usize) -> Result<u64> {
        self.data.size(self.id(index))
    }

    /// The whole set knows whether it turns pictures upright.
    fn decode(&self, index: usize, _: bool) -> Result<Picture> {
        self.data.decode_unnamed(self.id(index))
    }
}

/// The labelled pictures in two parts: what remains, and the given share of
/// them, drawn without regard to class, always the same ones. With a share of
/// 0 there is no second part.
///
/// # Errors
/// [`bad_input!`] if the share is not in 0..1, or there are too few pictures
/// for two parts.
pub fn hold_out(data: &Arc<Dataset>, share: f64) -> Result<(Arc<Dataset>, Option<Arc<Dataset>>)> {
    if !(0.0..1.0).contains(&share) {
        return Err(bad_input!(
            "the held-out share is {share}; expected at least 0 and less than 1"
        ));
    }
    let labelled = (0..data.len() as u32).filter(|&id| data.label(id as usize).is_some());
    let labelled: Vec<u32> = labelled.collect();
    let parts = if share > 0.0 { 2 } else { 1 };
    if labelled.len() < parts {
        return Err(bad_input!(
            "of the pictures {} have a label: too few to hold some out",
            labelled.len()
        ));
    }
    let part = |ids: Vec<u32>| {
        let opened = Opened {
            source: Box::new(Subset {
                data: data.clone(),
                ids,
            }),
            classes: data.classes().to_vec(),
        };
        Arc::new(Dataset::from_source(opened, false))
    };
    if parts == 1 {
        return Ok((part(labelled), None));
    }
    let count = (share * labelled.len() as f64).round() as usize;
    let count = count.clamp(1, labelled.len() - 1);
    let drawn = choose(labelled.len() as u32, Some(count));
    let mut is_drawn = vec![false; labelled.len()];
    drawn.iter().for_each(|&at| is_drawn[at as usize] = true);
    let [mut rest, mut held_out] = [Vec::new(), Vec::new()];
    for (id, drawn) in labelled.into_iter().zip(is_drawn) {
        if drawn { &mut held_out } else { &mut rest }.push(id);
    }
    Ok((part(rest), Some(part(held_out))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;

    #[test]
    fn two_parts_have_each_picture_once() {
        let all = Arc::new(Dataset::open(&DataSpec::new("synthetic:N=20,px=8,K=4")).unwrap());
        let (rest, held_out) = hold_out(&all, 0.3).unwrap();
        let held_out = held_out.unwrap();
        assert_eq!((rest.len(), held_out.len()), (14, 6));
        let mut names = Vec::new();
        for part in [&rest, &held_out] {
            assert_eq!(part.classes(), all.classes());
            for index in 0..part.len() {
                let of_name = |id: &usize| all.name(*id) == part.name(index);
                let id = (0..20).find(of_name).unwrap();
                assert_eq!(part.label(index), all.label(id));
                let [a, b] = [part.decode(index), all.decode(id)].map(Result::unwrap);
                assert_eq!(a.rgb, b.rgb);
                names.push(id);
            }
        }
        names.sort_unstable();
        assert_eq!(names, (0..20).collect::<Vec<_>>());
        assert_ne!(rest.fingerprint().unwrap(), all.fingerprint().unwrap());
    }

    #[test]
    fn nothing_is_held_out_where_none_is_asked_for() {
        let all = Arc::new(Dataset::open(&DataSpec::new("synthetic:N=5,px=8,K=2")).unwrap());
        let (rest, none) = hold_out(&all, 0.0).unwrap();
        assert_eq!((rest.len(), none.is_none()), (5, true));
        for share in [-0.1, 1.0, f64::NAN] {
            assert!(hold_out(&all, share).is_err(), "{share}");
        }
    }
}

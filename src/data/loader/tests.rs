use super::*;
use crate::data::DataSpec;
use crate::data::sources::{Opened, Source};
use anyhow::bail;

const PX: u32 = 8;

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        seed: 5,
        batch: 8,
        px: PX,
        views: 2,
        augment: Augment::default(),
        workers,
        prefetch: 2,
        corrupt_limit: 0.01,
        rows: 0..8,
        steps: 0..7,
    }
}

fn synthetic() -> Arc<Dataset> {
    Arc::new(Dataset::open(&DataSpec::new("synthetic:N=20,px=16,K=4")).unwrap())
}

/// A source of flat pictures, some of which fail in some way.
struct Faulty {
    len: usize,
    corrupt: fn(usize) -> bool,
    label_panics: bool,
}

impl Source for Faulty {
    fn len(&self) -> usize {
        self.len
    }
    fn kind(&self) -> String {
        "faulty".into()
    }
    fn name(&self, index: usize) -> String {
        format!("picture {index}")
    }
    fn label(&self, index: usize) -> Option<u32> {
        assert!(!self.label_panics, "no label of {index}");
        None
    }
    fn size(&self, _: usize) -> Result<u64> {
        Ok(0)
    }
    fn decode(&self, index: usize, _: bool) -> Result<Picture> {
        if (self.corrupt)(index) {
            // Both ways of failing come to the same.
            assert!(index.is_multiple_of(2), "odd");
            bail!("even");
        }
        Picture::new(4, 4, vec![index as u8; 48])
    }
}

fn faulty(len: usize, corrupt: fn(usize) -> bool, label_panics: bool) -> Arc<Dataset> {
    let source = Box::new(Faulty {
        len,
        corrupt,
        label_panics,
    });
    let classes = vec![];
    Arc::new(Dataset::from_source(Opened { source, classes }, true))
}

type Content = (u64, u32, Vec<u32>, Vec<i32>, [Vec<u8>; 2], [Vec<f32>; 2]);

fn content(batch: &Batch) -> Content {
    (
        batch.step,
        batch.epoch,
        batch.ids.clone(),
        batch.labels.clone(),
        batch.views.each_ref().map(|view| view.to_vec()),
        batch.params.clone(),
    )
}

fn run(data: &Arc<Dataset>, config: LoaderConfig) -> Vec<Content> {
    let mut loader = Loader::new(data.clone(), config).unwrap();
    let mut all = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        all.push(content(&batch));
        loader.recycle(batch);
    }
    all
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    let data = synthetic();
    let one = run(&data, config(1));
    assert_eq!(one.len(), 7);
    let steps: Vec<(u64, u32)> = one.iter().map(|batch| (batch.0, batch.1)).collect();
    let expected: Vec<(u64, u32)> = (0..7).map(|step| (step, step as u32 / 2)).collect();
    assert_eq!(steps, expected);
    assert_eq!(run(&data, config(3)), one);
    for (_, _, ids, labels, views, params) in &one {
        let by_id: Vec<i32> = ids.iter().map(|id| (id % 4) as i32).collect();
        assert_eq!(*labels, by_id);
        assert_ne!(views[0], views[1]);
        assert_eq!(params[0].len(), 8 * COLUMNS);
    }
}

#[test]
fn hosts_and_restarts_see_the_same_rows() {
    let data = synthetic();
    let whole = run(&data, config(2));
    let resumed = LoaderConfig {
        steps: 3..7,
        ..config(2)
    };
    assert_eq!(run(&data, resumed), whole[3..]);
    let host = LoaderConfig {
        rows: 6..8,
        ..config(2)
    };
    let view = (2 * PX * PX * 3) as usize;
    for (part, all) in run(&data, host).iter().zip(&whole) {
        assert_eq!(part.2, all.2[6..]);
        assert_eq!(part.4[1], all.4[1][all.4[1].len() - view..]);
        assert_eq!(part.5[0], all.5[0][6 * COLUMNS..]);
    }
}

#[test]
fn staging_buffers_are_filled_again_in_place() {
    let mut loader = Loader::new(synthetic(), config(2)).unwrap();
    let mut places = std::collections::BTreeSet::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        places.insert(batch.views[0].as_ptr());
        loader.recycle(batch);
    }
    // One more than are decoded ahead: the one in the caller's hands.
    assert!(places.len() <= 3, "{} buffers for 7 batches", places.len());
}

#[test]
fn a_corrupt_picture_is_replaced_named_and_reproducible() {
    let data = faulty(300, |i| i == 7 || i == 12, false);
    let config = LoaderConfig {
        batch: 300,
        rows: 0..300,
        steps: 0..2,
        ..config(3)
    };
    let mut loader = Loader::new(data.clone(), config.clone()).unwrap();
    let first = loader.next().unwrap().unwrap();
    let mut names: Vec<&str> = first.replaced.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["picture 12", "picture 7"]);
    assert!(!first.ids.contains(&7) && !first.ids.contains(&12));
    for (row, id) in first.ids.iter().enumerate() {
        let pixel = first.views[0][row * (PX * PX * 3) as usize];
        assert_eq!(pixel, *id as u8, "the pixels are those of the id");
    }
    let corrupt = loader.corrupt();
    assert_eq!(corrupt[0].error, "the decoder panicked: odd");
    assert_eq!(corrupt[1].error, "even");
    assert!(
        corrupt
            .iter()
            .all(|c| c.replacement.as_ref().unwrap() != &c.name)
    );
    let second = loader.next().unwrap().unwrap();
    assert_eq!(second.replaced.len(), 2);
    let again = run(&data, config);
    assert_eq!(again[0], content(&first));
    assert_eq!(again[1], content(&second));
}

#[test]
fn too_many_corrupt_pictures_stop_the_run() {
    let data = faulty(300, |i| i < 60, false);
    let mut loader = Loader::new(data, config(2)).unwrap();
    let results: Vec<Result<Batch>> = loader.by_ref().collect();
    let error = results.last().unwrap().as_ref().unwrap_err();
    assert!(
        error.downcast_ref::<crate::error::BadInput>().is_some(),
        "{error:#}"
    );
    assert!(error.to_string().contains("limit of 1%"), "{error:#}");
    assert!(loader.next().is_none(), "it ends after an error");

    let all = faulty(20, |_| true, false);
    let error = Loader::new(all, config(2)).unwrap().next().unwrap();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("neither could 16 others"), "{error}");
}

#[test]
fn a_panic_in_a_worker_is_an_error_not_a_hang() {
    let mut loader = Loader::new(faulty(20, |_| false, true), config(2)).unwrap();
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("panicked: no label of"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn what_does_not_fit_is_refused() {
    let refuse = |change: fn(&mut LoaderConfig)| {
        let mut config = config(1);
        change(&mut config);
        let error = Loader::new(synthetic(), config).err().unwrap();
        assert!(error.downcast_ref::<crate::error::BadInput>().is_some());
        error.to_string()
    };
    assert!(refuse(|c| c.batch = 21).contains("the data has 20"));
    assert!(refuse(|c| c.rows = 4..9).contains("rows 4..9"));
    assert!(refuse(|c| c.px = 0).contains("found 0"));
    assert!(refuse(|c| c.prefetch = 0).contains("batch ahead"));
    assert!(refuse(|c| c.corrupt_limit = 1.5).contains("found 1.5"));
}

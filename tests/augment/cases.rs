//! The reference tensors as rows, pictures and what must come out.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use xla_moco::data::augment::{BLEND, COLUMNS, FLIP, GRAY, HUE, SIGMA, SLOTS_EACH_SIDE, SOLARIZE};
use xla_moco::programs::augment::blur_kernel;

use crate::support;

pub type Row = [f32; COLUMNS];

/// Reference tensors by name.
pub struct Fixtures(pub Vec<u8>);

impl Fixtures {
    pub fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    pub fn stored() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
        Self::read(&folder.join("augment.safetensors"))
    }

    pub fn bytes(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        support::f32_values(&self.bytes(name, Dtype::F32).1)
    }

    pub fn i32(&self, name: &str) -> Vec<usize> {
        let (_, bytes) = self.bytes(name, Dtype::I32);
        let word = |b: &[u8]| i32::from_le_bytes(b.try_into().unwrap()) as usize;
        bytes.chunks_exact(4).map(word).collect()
    }

    /// Pictures and their side.
    pub fn pictures(&self, name: &str) -> (usize, Vec<Vec<u8>>) {
        let (shape, bytes) = self.bytes(name, Dtype::U8);
        let side = shape[shape.len() - 2];
        let each = bytes.chunks_exact(side * side * 3);
        (side, each.map(<[u8]>::to_vec).collect())
    }
}

/// A row that does nothing.
pub fn idle() -> Row {
    let mut row = [0.0; COLUMNS];
    (0..2 * SLOTS_EACH_SIDE).for_each(|slot| row[BLEND + 3 * slot] = 1.0);
    row
}

pub fn with(column: usize, value: f32) -> Row {
    let mut row = idle();
    row[column] = value;
    row
}

/// Brightness 0, contrast 1, saturation 2 in a slot.
pub fn set_blend(row: &mut Row, slot: usize, operation: usize, factor: f32) {
    let weights = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]][operation];
    let at = BLEND + 3 * slot;
    row[at..at + 3].copy_from_slice(&[factor, weights[0], weights[1]]);
}

/// All four in an order; `factors` by operation.
pub fn set_chain(row: &mut Row, order: &[usize], factors: &[f32]) {
    let mut slot = 0;
    for &operation in order {
        if operation == 3 {
            row[HUE] = factors[3];
            slot = SLOTS_EACH_SIDE;
        } else {
            set_blend(row, slot, operation, factors[operation]);
            slot += 1;
        }
    }
}

/// One picture, what to do with it, and what must come out, [S, S, 3].
pub struct Case {
    pub group: String,
    pub picture: Vec<u8>,
    pub row: Row,
    pub expected: Vec<f32>,
}

/// A case for each row and each picture; the expected tensor is
/// [rows, pictures, S, S, 3].
pub fn cases(fixtures: &Fixtures, group: &str, rows: &[Row]) -> Vec<Case> {
    let (side, pictures) = fixtures.pictures("picture");
    let expected = fixtures.f32(&format!("{group}.y"));
    let expected: Vec<_> = expected.chunks_exact(side * side * 3).collect();
    assert_eq!(expected.len(), rows.len() * pictures.len(), "{group}");
    let case = |i: usize| Case {
        group: group.to_owned(),
        picture: pictures[i % pictures.len()].clone(),
        row: rows[i / pictures.len()],
        expected: expected[i].to_vec(),
    };
    (0..expected.len()).map(case).collect()
}

/// Every operation by itself, each factor, and each blend in every slot;
/// then the chains. Not normalised.
pub fn operations(fixtures: &Fixtures) -> Vec<Case> {
    let (side, _) = fixtures.pictures("picture");
    assert_eq!(fixtures.i32("blur.kernel"), [blur_kernel(side)]);
    let mut all = Vec::new();
    for (operation, group) in ["brightness", "contrast", "saturation"].iter().enumerate() {
        let factors = fixtures.f32(&format!("{group}.factor"));
        for slot in 0..2 * SLOTS_EACH_SIDE {
            let rows = factors.iter().map(|&factor| {
                let mut row = idle();
                set_blend(&mut row, slot, operation, factor);
                row
            });
            all.extend(cases(fixtures, group, &rows.collect::<Vec<_>>()));
        }
    }
    for (group, factors, column) in [("hue", "hue.factor", HUE), ("blur", "blur.sigma", SIGMA)] {
        let rows = fixtures.f32(factors).into_iter().map(|x| with(column, x));
        all.extend(cases(fixtures, group, &rows.collect::<Vec<_>>()));
    }
    for (group, column) in [("grayscale", GRAY), ("solarize", SOLARIZE), ("flip", FLIP)] {
        all.extend(cases(fixtures, group, &[with(column, 1.0)]));
    }
    let order = fixtures.i32("chain.order");
    let factors = fixtures.f32("chain.factor");
    let chains = order.chunks(4).zip(factors.chunks(4)).map(|(o, f)| {
        let mut row = idle();
        set_chain(&mut row, o, f);
        row
    });
    all.extend(cases(fixtures, "chain", &chains.collect::<Vec<_>>()));
    all
}

/// Whole views, normalised.
pub fn views(fixtures: &Fixtures) -> Vec<Case> {
    let flags = |name: &str| fixtures.i32(&format!("view.{name}"));
    let (jitter, gray, solarize, flip) = (
        flags("jitter"),
        flags("grayscale"),
        flags("solarize"),
        flags("flip"),
    );
    let (order, factor) = (flags("order"), fixtures.f32("view.factor"));
    let sigma = fixtures.f32("view.sigma");
    let row = |i: usize| {
        let mut row = idle();
        if jitter[i] == 1 {
            set_chain(&mut row, &order[4 * i..][..4], &factor[4 * i..][..4]);
        }
        row[GRAY] = gray[i] as f32;
        row[SIGMA] = sigma[i];
        row[SOLARIZE] = solarize[i] as f32;
        row[FLIP] = flip[i] as f32;
        row
    };
    let rows: Vec<Row> = (0..jitter.len()).map(row).collect();
    let mut all = cases(fixtures, "view", &rows);
    all.extend(cases(fixtures, "normalize", &[idle()]));
    all
}

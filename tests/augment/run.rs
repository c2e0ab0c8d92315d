//! Cases on a plugin, and how far off they are.

use std::collections::BTreeMap;

use xla_moco::config::Augment;
use xla_moco::data::augment::COLUMNS;
use xla_moco::graph::{Builder, DType, Graph, Result, Shape, Value, emit};
use xla_moco::pjrt::{Arg, Client};
use xla_moco::programs::augment::augment;

use crate::cases::Case;
use crate::support;

/// With every part in the graph of view 1.
pub fn everything(normalised: bool) -> Augment {
    let mut config = Augment::default();
    if !normalised {
        (config.mean, config.std) = ([0.0; 3], [1.0; 3]);
    }
    config
}

/// The graph of pictures u8 [n, side, side, 3] and f32 rows of any width.
pub fn graph(
    (n, side, columns): (usize, usize, usize),
    body: impl Fn(&Builder, Value, Value) -> Result<Value>,
) -> Graph {
    let b = Builder::new();
    let pictures = b.input("pictures", Shape::new(DType::U8, &[n, side, side, 3]));
    let rows = b.input("rows", Shape::new(DType::F32, &[n, columns]));
    let y = body(&b, pictures, rows).unwrap();
    b.output("y", y);
    b.finish().unwrap()
}

pub fn augmentation(n: usize, side: usize, config: &Augment, view: usize) -> Graph {
    graph((n, side, COLUMNS), |b, x, rows| {
        augment(b, x, rows, config, view)
    })
}

/// Runs it once: pictures [3, side, side], turned to [side, side, 3].
pub fn run(client: &Client, graph: &Graph, pictures: &[u8], rows: &[f32]) -> Vec<Vec<f32>> {
    let shapes = graph.input_shapes();
    let device = &client.devices()[0];
    let upload = |i: usize, bytes: &[u8]| {
        client
            .buffer_from_host(bytes, shapes[i].dtype, shapes[i].dims(), device)
            .unwrap()
    };
    let inputs = [upload(0, pictures), upload(1, &support::f32_bytes(rows))];
    let program = support::compile(client, &emit::stablehlo("augment", graph, None));
    let arguments = inputs.iter().map(Arg::Borrow).collect();
    let result = program.execute(vec![arguments]).unwrap();
    let values = support::f32_values(&result.buffers[0][0].to_host().unwrap());
    let area = shapes[0].dims()[1] * shapes[0].dims()[2];
    let interleaved = |planes: &[f32]| {
        let pixels = (0..area).flat_map(|i| [planes[i], planes[area + i], planes[2 * area + i]]);
        pixels.collect()
    };
    values.chunks_exact(3 * area).map(interleaved).collect()
}

pub fn run_cases(client: &Client, cases: &[Case], config: &Augment) -> Vec<Vec<f32>> {
    let side = (cases[0].picture.len() / 3).isqrt();
    let pictures: Vec<u8> = cases.iter().flat_map(|c| c.picture.clone()).collect();
    let rows: Vec<f32> = cases.iter().flat_map(|c| c.row).collect();
    let graph = augmentation(cases.len(), side, config, 1);
    run(client, &graph, &pictures, &rows)
}

/// Largest and mean absolute difference of all pixels of a group.
#[derive(Default)]
pub struct Difference {
    pub largest: f32,
    sum: f64,
    count: usize,
}

impl Difference {
    pub fn add(&mut self, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            let off = (a - b).abs();
            // A NaN is the worst, and stays.
            if off.is_nan() || off > self.largest {
                self.largest = off;
            }
            self.sum += f64::from(off);
        }
        self.count += found.len();
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

pub fn by_group(cases: &[Case], found: &[Vec<f32>]) -> BTreeMap<String, Difference> {
    assert_eq!(cases.len(), found.len());
    let mut groups = BTreeMap::<String, Difference>::new();
    for (case, y) in cases.iter().zip(found) {
        let group = groups.entry(case.group.clone()).or_default();
        group.add(y, &case.expected);
    }
    groups
}

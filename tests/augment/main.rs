//! The augmentation on the CPU plugins against torchvision
//! (tools/reference/augment.py).

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod photos;
mod run;
mod time;

use xla_moco::config::Augment;
use xla_moco::data::augment::{COLUMNS, draw};
use xla_moco::graph::ops::Op;
use xla_moco::graph::{Builder, DType, Graph, Shape};
use xla_moco::programs::augment::{augment, blur, normalise};

use crate::cases::{Fixtures, idle, operations, views};
use crate::run::{Difference, augmentation, by_group, everything, graph, run, run_cases};

/// No pixel is left out. The tolerance is some units in the last place of f32,
/// times the gain of contrast and, for views, of dividing by the deviation.
#[test]
fn it_is_torchvisions() {
    let fixtures = Fixtures::stored();
    support::on_each_cpu_plugin(1, |name, client| {
        for (cases, normalised) in [(operations(&fixtures), false), (views(&fixtures), true)] {
            let found = run_cases(client, &cases, &everything(normalised));
            for (group, off) in by_group(&cases, &found) {
                eprintln!(
                    "{name} {group}: at most {:.1e}, mean {:.1e}",
                    off.largest,
                    off.mean()
                );
                let allowed = if normalised { 1e-5 } else { 2e-6 };
                assert!(
                    off.largest <= allowed,
                    "{name} {group}: {:.1e}",
                    off.largest
                );
            }
        }
    });
}

#[test]
fn a_wide_blur_is_torchvisions() {
    let fixtures = Fixtures::stored();
    let (side, pictures) = fixtures.pictures("blur_wide.picture");
    let kernel = fixtures.i32("blur_wide.kernel")[0];
    let sigma = fixtures.f32("blur_wide.sigma");
    let expected = fixtures.f32("blur_wide.y");
    let n = sigma.len();
    let graph = graph((n, side, 1), |b, x, sigma| {
        let x = normalise(b, x, [0.0; 3], [1.0; 3])?;
        blur(b, x, b.reshape(sigma, &[n, 1, 1, 1])?, kernel)
    });
    support::on_each_cpu_plugin(1, |name, client| {
        let found = run(client, &graph, &pictures[0].repeat(n), &sigma);
        let mut off = Difference::default();
        off.add(&found.concat(), &expected);
        eprintln!(
            "{name}: at most {:.1e}, mean {:.1e}",
            off.largest,
            off.mean()
        );
        assert!(off.largest <= 2e-6, "{name}: {:.1e}", off.largest);
    });
}

/// A row that does nothing leaves the picture as it is, to the bit, since what
/// is solarized of a pixel of 128 turns on the last bit.
#[test]
fn a_row_that_does_nothing_only_normalises() {
    let (side, pictures) = Fixtures::stored().pictures("picture");
    let config = everything(false);
    let (n, rows) = (pictures.len(), idle().repeat(pictures.len()));
    let plain = graph((n, side, COLUMNS), |b, x, _| {
        normalise(b, x, config.mean, config.std)
    });
    support::on_each_cpu_plugin(1, |name, client| {
        for view in 0..2 {
            let full = augmentation(n, side, &config, view);
            let found = run(client, &full, &pictures.concat(), &rows);
            assert!(
                found == run(client, &plain, &pictures.concat(), &rows),
                "{name}"
            );
        }
    });
}

type Change = fn(&mut Augment);

/// What a configuration never draws, with the scopes that then hold no ops.
const OFF: [(Change, &[&str]); 7] = [
    (|c| c.jitter_p = 0.0, &["jitter", "hue"]),
    (|c| c.jitter = [0.0; 4], &["jitter", "hue"]),
    (|c| c.jitter[3] = 0.0, &["hue"]),
    (|c| c.gray_p = 0.0, &["grayscale"]),
    (|c| c.blur_p[1] = 0.0, &["blur"]),
    (|c| c.solarize_p[1] = 0.0, &["solarize"]),
    (|c| c.flip_p = 0.0, &["flip"]),
];

fn has_scope(graph: &Graph, part: &str) -> bool {
    let scope = format!("augment/{part}");
    graph.nodes().iter().any(|node| graph.scope(node) == scope)
}

#[test]
fn what_is_never_drawn_is_not_in_the_graph() {
    let full = augmentation(4, 32, &Augment::default(), 1);
    for (change, absent) in OFF {
        let mut config = Augment::default();
        change(&mut config);
        let graph = augmentation(4, 32, &config, 1);
        for part in ["jitter", "hue", "grayscale", "blur", "solarize", "flip"] {
            assert!(has_scope(&full, part), "{part}");
            assert_eq!(has_scope(&graph, part), !absent.contains(&part), "{part}");
        }
    }
    let first = augmentation(4, 32, &Augment::default(), 0);
    assert!(has_scope(&first, "blur") && !has_scope(&first, "solarize"));

    let means = |jitter: [f64; 4]| {
        let config = Augment {
            jitter,
            blur_p: [0.0; 2],
            ..Augment::default()
        };
        let graph = augmentation(4, 32, &config, 1);
        let reduces = |op: &Op| op.variant() == "Reduce";
        graph.nodes().iter().filter(|n| reduces(&n.op)).count()
    };
    assert_eq!(means([0.4, 0.4, 0.2, 0.1]), 6);
    assert_eq!(means([0.4, 0.0, 0.2, 0.1]), 0);
}

/// Rows drawn under a configuration do the same in its graph as in that of
/// everything.
#[test]
fn leaving_parts_out_changes_nothing() {
    let (side, pictures) = Fixtures::stored().pictures("picture");
    let n = 16;
    let pictures = pictures.concat().repeat(n / pictures.len());
    let more: [(Change, &[&str]); 3] = [
        (|c| c.jitter[0] = 0.0, &[]),
        (|c| c.jitter[1] = 0.0, &[]),
        (|c| c.jitter[2] = 0.0, &[]),
    ];
    let parts: Vec<(Graph, Vec<f32>)> = OFF
        .iter()
        .chain(&more)
        .map(|(change, _)| {
            let mut config = Augment::default();
            change(&mut config);
            let size = (side as u32, side as u32);
            let rows = (0..n as u32).flat_map(|i| draw(&config, 3, 0, i, 1, size).1);
            (augmentation(n, side, &config, 1), rows.collect())
        })
        .collect();
    let all = augmentation(n * parts.len(), side, &Augment::default(), 1);
    let all_rows: Vec<f32> = parts.iter().flat_map(|(_, rows)| rows.clone()).collect();
    support::on_each_cpu_plugin(1, |name, client| {
        let full = run(client, &all, &pictures.repeat(parts.len()), &all_rows);
        for (i, ((graph, rows), full)) in parts.iter().zip(full.chunks(n)).enumerate() {
            let mut off = Difference::default();
            off.add(
                &run(client, graph, &pictures, rows).concat(),
                &full.concat(),
            );
            assert!(
                off.largest <= 1e-5,
                "{name}, change {i}: {:.1e}",
                off.largest
            );
        }
    });
}

#[test]
fn other_shapes_are_refused() {
    let attempt = |dims: &[usize], dtype: DType, columns: usize| {
        let b = Builder::new();
        let crops = b.input("crops", Shape::new(dtype, dims));
        let rows = b.input("rows", Shape::new(DType::F32, &[2, columns]));
        augment(&b, crops, rows, &Augment::default(), 0).map(drop)
    };
    assert!(attempt(&[2, 32, 32, 3], DType::U8, COLUMNS).is_ok());
    for (dims, dtype, columns) in [
        (&[2, 32, 32, 3][..], DType::F32, COLUMNS),
        (&[2, 3, 32, 32], DType::U8, COLUMNS),
        (&[2, 32, 16, 3], DType::U8, COLUMNS),
        (&[32, 32, 3], DType::U8, COLUMNS),
        (&[3, 32, 32, 3], DType::U8, COLUMNS),
        (&[2, 32, 32, 3], DType::U8, COLUMNS - 1),
    ] {
        let error = attempt(dims, dtype, columns).unwrap_err().to_string();
        assert!(error.contains("scope 'augment'"), "{error}");
    }
}

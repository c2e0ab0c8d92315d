//! What the procedural pictures give away: nothing by colour, the class by
//! texture.

use xla_moco::data::{DataSpec, Dataset, Picture};

const CLASSES: usize = 8;

fn sets() -> (Dataset, Dataset) {
    let spec = DataSpec::new("synthetic:K=8,N=4096,px=64");
    let train = Dataset::open_train(&spec).unwrap();
    let test = Dataset::open_test(&spec, &train).unwrap().unwrap();
    (train, test)
}

/// Means of `cells` x `cells` squares, per colour.
fn thumbnail(picture: &Picture, cells: usize) -> Vec<f64> {
    let side = picture.width as usize;
    let cell = side / cells;
    let mut sums = vec![0.0; cells * cells * 3];
    for (at, value) in picture.rgb.iter().enumerate() {
        let (pixel, channel) = (at / 3, at % 3);
        let (row, column) = (pixel / side / cell, pixel % side / cell);
        sums[(row * cells + column) * 3 + channel] += f64::from(*value);
    }
    let scale = 255.0 * (cell * cell) as f64;
    sums.iter().map(|sum| sum / scale - 0.5).collect()
}

/// How the greys of pixels at some distances go together, over all
/// directions: blind to place, rotation and mirror image.
fn correlations(picture: &Picture) -> Vec<f64> {
    let side = picture.width as usize;
    let green: Vec<f64> = picture
        .rgb
        .iter()
        .skip(1)
        .step_by(3)
        .map(|&v| f64::from(v))
        .collect();
    let at = |row: usize, column: usize| green[row * side + column];
    let spread = green.iter().map(|v| v * v).sum::<f64>() / green.len() as f64
        - (green.iter().sum::<f64>() / green.len() as f64).powi(2);
    let mut features = Vec::new();
    for (dy, dx) in (1..13).flat_map(|d| [(0, d), (d, 0)]) {
        let mut sum = 0.0;
        for row in 0..side - dy {
            for column in 0..side - dx {
                sum += (at(row, column) - at(row + dy, column + dx)).abs();
            }
        }
        let mean = sum / ((side - dy) * (side - dx)) as f64;
        features.push(mean / spread.sqrt());
    }
    features.chunks(2).map(|pair| pair[0] + pair[1]).collect()
}

/// Accuracy in percent on `test` of a ridge regression onto the classes.
fn probe((train, test): &(Dataset, Dataset), features: impl Fn(&Picture) -> Vec<f64>) -> f64 {
    let rows = |data: &Dataset| -> Vec<(Vec<f64>, usize)> {
        let row = |i| {
            let mut x = features(&data.decode(i).unwrap());
            x.push(1.0);
            (x, data.label(i).unwrap() as usize)
        };
        (0..data.len()).map(row).collect()
    };
    let rows_train = rows(train);
    let width = rows_train[0].0.len();
    // Normal equations, the targets in the last columns.
    let mut system = vec![vec![0.0; width + CLASSES]; width];
    for (x, label) in &rows_train {
        for (i, line) in system.iter_mut().enumerate() {
            for (j, value) in x.iter().enumerate() {
                line[j] += x[i] * value;
            }
            line[width + label] += x[i];
        }
    }
    (0..width).for_each(|i| system[i][i] += 1e-3 * rows_train.len() as f64 * 1e-2);
    eliminate(&mut system);
    let correct = rows(test).into_iter().filter(|(x, label)| {
        let score = |k: usize| -> f64 { (0..width).map(|i| x[i] * system[i][width + k]).sum() };
        let best = (0..CLASSES).max_by(|&a, &b| score(a).total_cmp(&score(b)));
        best == Some(*label)
    });
    100.0 * correct.count() as f64 / test.len() as f64
}

/// Gauss and Jordan, of a positive definite system: no pivoting needed.
fn eliminate(system: &mut [Vec<f64>]) {
    for pivot in 0..system.len() {
        let scale = 1.0 / system[pivot][pivot];
        system[pivot].iter_mut().for_each(|value| *value *= scale);
        let line = system[pivot].clone();
        for (i, other) in system.iter_mut().enumerate() {
            let factor = other[pivot];
            if i != pivot && factor != 0.0 {
                let pairs = other.iter_mut().zip(&line);
                pairs.for_each(|(value, above)| *value -= factor * above);
            }
        }
    }
}

#[test]
fn colour_and_layout_alone_give_no_label_but_texture_does() {
    let sets = sets();
    let chance = 100.0 / CLASSES as f64;
    let mean = probe(&sets, |picture| thumbnail(picture, 1));
    let small = probe(&sets, |picture| thumbnail(picture, 8));
    let texture = probe(&sets, correlations);
    eprintln!("mean colour {mean:.1}%, 8x8 thumbnail {small:.1}%, texture {texture:.1}%");
    assert!((mean - chance).abs() <= 5.0, "mean colour: {mean:.1}%");
    assert!((small - chance).abs() <= 5.0, "8x8 thumbnail: {small:.1}%");
    assert!(
        texture >= 40.0,
        "twelve numbers of the texture: {texture:.1}%"
    );
}

#[test]
fn the_test_pictures_are_other_pictures_of_the_same_classes() {
    let (train, test) = sets();
    assert_eq!((train.len(), test.len()), (4096, 1024));
    assert_eq!(train.classes(), test.classes());
    assert_eq!((train.label(11), test.label(11)), (Some(3), Some(3)));
    assert_ne!(train.decode(0).unwrap(), test.decode(0).unwrap());
    assert_ne!(train.fingerprint().unwrap(), test.fingerprint().unwrap());
}

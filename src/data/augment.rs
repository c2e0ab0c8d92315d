//! What is drawn for each view of each picture.
//!
//! The host draws numbers; the device does the work (`programs::augment`).
//! One view of one picture is a [`CropBox`], applied by the host, and a row
//! of [`COLUMNS`] f32 values, applied by the train step. A row is a pure
//! function of (configuration, seed, epoch, sample, view).
//!
//! The order of operations is that of the paper's code: crop, colour jitter
//! (brightness, contrast, saturation and hue in a drawn order), greyscale,
//! blur, solarize, flip.
//!
//! The first three of the jitter's operations are one form, a *blend slot*
//! `(factor, w_gray, w_mean)`:
//!
//! ```text
//! x <- clamp(factor * x + (1 - factor) * (w_gray * gray(x) + w_mean * mean(gray(x))), 0, 1)
//! brightness: (f, 0, 0)   contrast: (f, 0, 1)   saturation: (f, 1, 0)   nothing: (1, 0, 0)
//! ```
//!
//! so three slots, the hue shift, and three more slots hold every order of
//! the four.

use super::crop::{CropBox, random_resized};
use crate::config::Augment;
use crate::rng::{Purpose, Stream};

/// Column: 1 to mirror left and right, else 0.
pub const FLIP: usize = 0;
/// Column: the hue's shift in turns; 0 for none.
pub const HUE: usize = 1;
/// Column: 1 to make the picture grey, else 0.
pub const GRAY: usize = 2;
/// Column: standard deviation of the Gaussian blur in pixels; 0 for none.
pub const SIGMA: usize = 3;
/// Column: 1 to invert values of at least 128/255, else 0.
pub const SOLARIZE: usize = 4;
/// First column of the blend slots. Slot `s` has its factor, w_gray and
/// w_mean at `BLEND + 3 * s` and after.
pub const BLEND: usize = 5;
/// Blend slots before the hue shift, and as many after it.
pub const SLOTS_EACH_SIDE: usize = 3;
/// Values in a row.
pub const COLUMNS: usize = BLEND + 2 * SLOTS_EACH_SIDE * 3;

/// Blend slots by jitter operation, in the order of
/// [`Augment::jitter`]: (w_gray, w_mean). The fourth operation is hue.
const BLENDS: [(f32, f32); 3] = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)];

/// What is drawn for one view of one picture of `size` (width, height):
/// the part that the host cuts out, and the row that the device applies.
/// `view` is 0 or 1.
pub fn draw(
    config: &Augment,
    seed: u64,
    epoch: u32,
    sample: u32,
    view: usize,
    size: (u32, u32),
) -> (CropBox, [f32; COLUMNS]) {
    let item = (epoch << 8 | view as u32, sample);
    let mut stream = Stream::new(seed, Purpose::Augment, item);
    // The row first: the crop takes more draws in some pictures than in
    // others, and the row shall not depend on the picture's size.
    let row = draw_row(config, &mut stream, view);
    let part = random_resized(&mut stream, size.0, size.1, config.crop_min);
    (part, row)
}

fn draw_row(config: &Augment, stream: &mut Stream, view: usize) -> [f32; COLUMNS] {
    let mut row = [0.0; COLUMNS];
    for slot in 0..2 * SLOTS_EACH_SIDE {
        row[BLEND + 3 * slot] = 1.0;
    }
    if stream.chance(config.jitter_p) {
        draw_jitter(config, stream, &mut row);
    }
    let flag = |yes: bool| f32::from(u8::from(yes));
    row[GRAY] = flag(stream.chance(config.gray_p));
    if stream.chance(config.blur_p[view]) {
        row[SIGMA] = stream.range(config.blur_sigma[0], config.blur_sigma[1]) as f32;
    }
    row[SOLARIZE] = flag(stream.chance(config.solarize_p[view]));
    row[FLIP] = flag(stream.chance(config.flip_p));
    row
}

fn draw_jitter(config: &Augment, stream: &mut Stream, row: &mut [f32; COLUMNS]) {
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, stream.below(last as u32 + 1) as usize);
    }
    let mut slot = 0;
    for operation in order {
        let strength = config.jitter[operation];
        let Some(&(w_gray, w_mean)) = BLENDS.get(operation) else {
            row[HUE] = stream.range(-strength, strength) as f32;
            slot = SLOTS_EACH_SIDE;
            continue;
        };
        let factor = stream.range((1.0 - strength).max(0.0), 1.0 + strength) as f32;
        let at = BLEND + 3 * slot;
        row[at..at + 3].copy_from_slice(&[factor, w_gray, w_mean]);
        slot += 1;
    }
}

/// What a row does, in words, in its order.
///
/// # Panics
/// If it has less than [`COLUMNS`] values.
pub fn words(row: &[f32]) -> Vec<String> {
    let blends = |first: usize| {
        let slots = row[BLEND..].chunks(3).skip(first).take(SLOTS_EACH_SIDE);
        slots.filter_map(|slot| {
            let name = match slot {
                [1.0, 0.0, 0.0] => return None,
                [_, 0.0, 0.0] => "brightness",
                [_, 0.0, _] => "contrast",
                _ => "saturation",
            };
            Some(format!("{name} × {:.2}", slot[0]))
        })
    };
    let set = |column: usize, text: String| (row[column] != 0.0).then_some(text);
    let rest = [
        set(GRAY, "greyscale".into()),
        set(SIGMA, format!("blur, sigma {:.2} pixels", row[SIGMA])),
        set(SOLARIZE, "solarized".into()),
        set(FLIP, "flipped".into()),
    ];
    blends(0)
        .chain(set(HUE, format!("hue {:+.3} turns", row[HUE])))
        .chain(blends(SLOTS_EACH_SIDE))
        .chain(rest.into_iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(config: &Augment, view: usize, n: u32) -> Vec<[f32; COLUMNS]> {
        (0..n)
            .map(|sample| draw(config, 11, 2, sample, view, (500, 375)).1)
            .collect()
    }

    fn share(rows: &[[f32; COLUMNS]], column: usize) -> f64 {
        rows.iter().filter(|row| row[column] != 0.0).count() as f64 / rows.len() as f64
    }

    #[test]
    fn probabilities_are_those_of_the_recipe() {
        let config = Augment::default();
        for (view, blur, solarize) in [(0, 1.0, 0.0), (1, 0.1, 0.2)] {
            let rows = rows(&config, view, 20_000);
            for (column, p) in [
                (FLIP, 0.5),
                (HUE, 0.8),
                (GRAY, 0.2),
                (SIGMA, blur),
                (SOLARIZE, solarize),
            ] {
                let seen = share(&rows, column);
                assert!((seen - p).abs() < 0.012, "column {column}: {seen} for {p}");
            }
        }
    }

    #[test]
    fn values_stay_in_their_ranges() {
        for row in rows(&Augment::default(), 0, 5_000) {
            assert!((0.1..=2.0).contains(&row[SIGMA]));
            assert!(row[HUE].abs() <= 0.1);
            for slot in row[BLEND..].chunks(3) {
                let strength = if slot[1] == 1.0 { 0.2 } else { 0.4 };
                assert!((slot[0] - 1.0).abs() <= strength + 1e-6, "{slot:?}");
            }
        }
    }

    /// All 24 orders occur about equally often, each with three blends,
    /// filled from the left on either side of the hue shift.
    #[test]
    fn every_order_of_the_jitter_occurs() {
        let config = Augment {
            jitter_p: 1.0,
            ..Augment::default()
        };
        let mut seen = std::collections::BTreeMap::new();
        let n = 24_000;
        for row in rows(&config, 0, n) {
            let kinds: Vec<i32> = row[BLEND..]
                .chunks(3)
                .map(|slot| match slot {
                    [1.0, 0.0, 0.0] => 0,
                    [_, 0.0, 0.0] => 1,
                    [_, 0.0, 1.0] => 2,
                    [_, 1.0, 0.0] => 3,
                    other => panic!("not a blend: {other:?}"),
                })
                .collect();
            let sides: Vec<Vec<i32>> = kinds.chunks(SLOTS_EACH_SIDE).map(<[i32]>::to_vec).collect();
            for side in &sides {
                let used = side.iter().take_while(|&&k| k != 0).count();
                assert!(side[used..].iter().all(|&k| k == 0), "{sides:?}");
            }
            *seen.entry(kinds).or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        assert!(seen.values().all(|&count| (800..1200).contains(&count)));
    }

    #[test]
    fn without_jitter_the_row_does_nothing() {
        let config = Augment {
            crop_min: 1.0,
            jitter: [0.0; 4],
            jitter_p: 0.0,
            gray_p: 0.0,
            blur_p: [0.0; 2],
            blur_sigma: [0.1, 2.0],
            solarize_p: [0.0; 2],
            flip_p: 0.0,
            ..Augment::default()
        };
        let mut expected = [0.0; COLUMNS];
        (0..6).for_each(|slot| expected[BLEND + 3 * slot] = 1.0);
        assert!(rows(&config, 1, 50).iter().all(|row| *row == expected));
    }

    #[test]
    fn a_row_is_told_in_its_order() {
        let mut row = [0.0; COLUMNS];
        (0..6).for_each(|slot| row[BLEND + 3 * slot] = 1.0);
        assert!(words(&row).is_empty());
        row[BLEND..BLEND + 3].copy_from_slice(&[0.75, 1.0, 0.0]);
        row[BLEND + 9..BLEND + 15].copy_from_slice(&[1.25, 0.0, 0.0, 1.5, 0.0, 1.0]);
        (row[HUE], row[FLIP], row[SIGMA]) = (-0.05, 1.0, 1.5);
        let told = [
            "saturation × 0.75",
            "hue -0.050 turns",
            "brightness × 1.25",
            "contrast × 1.50",
            "blur, sigma 1.50 pixels",
            "flipped",
        ];
        assert_eq!(words(&row), told);
        (row[GRAY], row[SOLARIZE]) = (1.0, 1.0);
        assert_eq!(
            words(&row)[4..],
            ["greyscale", told[4], "solarized", "flipped"]
        );
    }

    #[test]
    fn the_row_does_not_depend_on_the_size_of_the_picture() {
        let config = Augment::default();
        for sample in 0..50 {
            let row = |size| draw(&config, 5, 1, sample, 0, size).1;
            assert_eq!(row((500, 375)), row((1, 900)));
        }
        let row = |epoch, view| draw(&config, 5, epoch, 3, view, (9, 9));
        assert_ne!(row(1, 0), row(1, 1));
        assert_ne!(row(1, 0), row(2, 0));
        assert_eq!(row(1, 0), row(1, 0));
    }
}

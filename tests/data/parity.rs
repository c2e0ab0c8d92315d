//! Decoding and resizing against Pillow (tools/fixtures_data.py).

use std::fs;
use std::path::Path;

use serde::Deserialize;
use xla_moco::data::crop::CropBox;
use xla_moco::data::decode::{Picture, decode};
use xla_moco::data::resize::Scaler;

use crate::{fixture, shared};

#[derive(Deserialize)]
struct Case {
    file: String,
    /// decode: upright; raw: without turning; crop, central: as `Scaler`'s.
    kind: String,
    #[serde(rename = "box")]
    part: Option<[u32; 4]>,
    width: u32,
    height: u32,
    offset: usize,
}

/// The cases of a folder with the pixels that Pillow gave.
fn cases(folder: &Path) -> Vec<(Case, Vec<u8>)> {
    let text = fs::read_to_string(folder.join("cases.json")).unwrap();
    let expected = fs::read(folder.join("expected.bin")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    let with_pixels = cases.into_iter().map(|case| {
        let len = (case.width * case.height * 3) as usize;
        let pixels = expected[case.offset..case.offset + len].to_vec();
        (case, pixels)
    });
    with_pixels.collect()
}

fn resized(case: &Case, picture: &Picture) -> Vec<u8> {
    let mut out = vec![0; (case.width * case.height * 3) as usize];
    let mut scaler = Scaler::default();
    match case.part {
        Some([x, y, width, height]) => {
            let part = CropBox {
                x,
                y,
                width,
                height,
            };
            scaler.crop(picture, part, case.width, &mut out).unwrap();
        }
        None => scaler.central(picture, case.width, &mut out).unwrap(),
    }
    out
}

/// Largest and mean difference in levels of 255.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = pairs.clone().map(f64::from).sum();
    (pairs.max().unwrap(), sum / a.len() as f64)
}

/// Lossless formats are exact; for the others the decoders' inverse
/// transforms and chroma interpolation may round differently, the more so in
/// a picture of little but edges in full colour.
#[test]
fn every_format_decodes_to_what_pillow_gives() {
    let mut seen = 0;
    for (case, expected) in cases(&fixture("")) {
        if !matches!(case.kind.as_str(), "decode" | "raw") {
            continue;
        }
        let bytes = fs::read(fixture(&case.file)).unwrap();
        let picture = decode(&bytes, case.kind == "decode").unwrap();
        let size = (picture.width, picture.height);
        assert_eq!(size, (case.width, case.height), "{}", case.file);
        let (max, mean) = difference(&picture.rgb, &expected);
        let lossless = case.file.ends_with(".png") || case.file == "lossless.webp";
        let (max_allowed, mean_allowed) = if lossless || case.file == "exif_6.webp" {
            (0, 0.0)
        } else {
            (4, 0.5)
        };
        assert!(
            max <= max_allowed && mean <= mean_allowed,
            "{}: differs by at most {max}, mean {mean:.3}",
            case.file
        );
        seen += 1;
    }
    assert_eq!(seen, 24);
}

/// The same pixels resized: at most 2 levels, .2 in the mean over all.
#[test]
fn resizing_is_pillows() {
    check_resize(
        &fixture(""),
        &fixture(""),
        |file| file == "resize.png",
        2,
        0.2,
    );
}

/// A JPEG decoded and resized: at most 4 levels.
#[test]
fn the_whole_path_is_pillows() {
    check_resize(
        &fixture(""),
        &fixture(""),
        |file| file == "resize.jpg",
        4,
        0.5,
    );
}

#[test]
fn the_whole_path_is_pillows_on_photographs() {
    let Some(photos) = shared("photos") else {
        return;
    };
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures/photos");
    if !expected.exists() {
        eprintln!("skipped: make the references with tools/fixtures_data.py --photos FOLDER");
        return;
    }
    check_resize(&expected, &photos, |_| true, 4, 0.2);
}

fn check_resize(
    folder: &Path,
    files: &Path,
    choose: fn(&str) -> bool,
    max_allowed: u8,
    mean_allowed: f64,
) {
    let (mut largest, mut sum, mut seen) = (0, 0.0, 0);
    for (case, expected) in cases(folder) {
        if !matches!(case.kind.as_str(), "crop" | "central") || !choose(&case.file) {
            continue;
        }
        // Pillow does not turn pictures unless asked to.
        let picture = decode(&fs::read(files.join(&case.file)).unwrap(), false).unwrap();
        let (max, mean) = difference(&resized(&case, &picture), &expected);
        assert!(
            max <= max_allowed,
            "{} {} {:?}: differs by {max}",
            case.file,
            case.kind,
            case.part
        );
        largest = largest.max(max);
        sum += mean;
        seen += 1;
    }
    assert!(seen >= 6);
    let mean = sum / f64::from(seen);
    eprintln!("{seen} resized: differ by at most {largest}, mean {mean:.3}");
    assert!(mean <= mean_allowed, "mean difference {mean:.3}");
}

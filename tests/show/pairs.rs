//! Augmented pairs against the run's draws and the pictures themselves.

use image::RgbImage;
use serde_json::json;
use xla_moco::config::{Override, RunConfig};
use xla_moco::data::{DataSpec, Dataset, Sampler, augment};

use super::support::evaluation::{json, run_folder};
use super::{page, run};

/// Every view is the whole picture, mirrored: to the bit, since 32 pixels need
/// no resizing.
#[test]
fn views_are_what_the_program_makes_of_the_steps_pictures() {
    let temp = tempfile::tempdir().unwrap();
    let plain = [
        ("crop_min", json!(1.0)),
        ("jitter_p", json!(0.0)),
        ("gray_p", json!(0.0)),
        ("flip_p", json!(1.0)),
        ("solarize_p", json!([0.0, 0.0])),
    ];
    let plain = plain.map(|(key, value)| Override::new(&format!("augment.{key}"), value));
    let run_dir = run_folder(&temp.path().join("run"), &plain);
    let out = temp.path().join("page.html");
    let arguments = [
        "--pictures",
        "3",
        "--points",
        "2",
        "--step",
        "2",
        "--json",
        "--out",
        out.to_str().unwrap(),
    ];
    let report = json(&run("show", run_dir.root(), &arguments));
    let config = RunConfig::from_value(run_dir.read_config().unwrap().unwrap()).unwrap();
    let (_, ids) = Sampler::new(200, config.batch, config.seed)
        .unwrap()
        .batch(1)
        .unwrap();
    let data = Dataset::open(&DataSpec::new("synthetic:K=4,N=200,px=32")).unwrap();
    let pairs = report["pairs"]["pictures"].as_array().unwrap();
    let (page, _) = page(&out);
    let (_, section) = page.split_once("id=\"pairs\"").unwrap();
    let pictures: Vec<RgbImage> = section
        .split("src=\"data:image/png;base64,")
        .skip(1)
        .map(png)
        .collect();
    assert_eq!((pairs.len(), pictures.len()), (3, 9));
    for (i, pair) in pairs.iter().enumerate() {
        assert_eq!(pair["id"], ids[i]);
        let whole = data.decode(ids[i] as usize).unwrap();
        let whole = RgbImage::from_raw(32, 32, whole.rgb).unwrap();
        let mirrored = image::imageops::flip_horizontal(&whole);
        assert_eq!(pictures[3 * i], whole);
        for view in 0..2 {
            assert_eq!(pictures[3 * i + 1 + view], mirrored);
            assert_eq!(pair["views"][view]["cut"], json!([0, 0, 32, 32]));
            let words = pair["views"][view]["words"].as_array().unwrap();
            assert_eq!(words.last().unwrap(), "flipped");
        }
    }
}

#[test]
fn boxes_and_words_are_those_that_the_run_draws() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[Override::new("seed", 7)]);
    let report = json(&run("show", run_dir.root(), &["--points", "2", "--json"]));
    let config = RunConfig::from_value(run_dir.read_config().unwrap().unwrap()).unwrap();
    let (epoch, ids) = Sampler::new(200, config.batch, 7)
        .unwrap()
        .batch(0)
        .unwrap();
    assert_eq!(
        (&report["pairs"]["seed"], &report["pairs"]["step"]),
        (&json!(7), &json!(1))
    );
    // The made-up checkpoint does not say what it was trained on.
    assert_eq!(report["pairs"]["of_run"], false);
    let mut told = 0;
    for (pair, id) in report["pairs"]["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .zip(ids)
    {
        for view in 0..2 {
            let (cut, row) = augment::draw(&config.augment, 7, epoch, id, view, (32, 32));
            let found = &pair["views"][view];
            assert_eq!(found["cut"], json!([cut.x, cut.y, cut.width, cut.height]));
            let words: Vec<String> = serde_json::from_value(found["words"].clone()).unwrap();
            for (column, word) in [
                (augment::GRAY, "greyscale"),
                (augment::FLIP, "flipped"),
                (augment::SOLARIZE, "solarized"),
            ] {
                assert_eq!(
                    row[column] != 0.0,
                    words.iter().any(|w| w == word),
                    "{words:?}"
                );
                told += usize::from(row[column] != 0.0);
            }
        }
    }
    assert!(told > 0);
}

fn png(text: &str) -> RgbImage {
    let (text, _) = text.split_once('"').unwrap();
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = text.trim_end_matches('=').as_bytes();
    let bytes = text.chunks(4).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0u32, |bits, c| bits << 6 | u32::from(digit(*c)));
        let bits = bits << (6 * (4 - group.len()) + 8);
        bits.to_be_bytes().into_iter().take(group.len() - 1)
    });
    let bytes: Vec<u8> = bytes.collect();
    image::load_from_memory(&bytes).unwrap().into_rgb8()
}

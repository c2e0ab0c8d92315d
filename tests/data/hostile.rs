//! Bad input: each with its message, and never a panic.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::tempdir;
use xla_moco::config::Augment;
use xla_moco::data::decode::decode;
use xla_moco::data::{DataSpec, Dataset, Loader, LoaderConfig};
use xla_moco::error::BadInput;

use crate::{fixture, open, spec};

/// Opening fails as the user's mistake, with these words.
fn refuse(path: &Path, words: &[&str]) {
    let error = Dataset::open(&spec(path)).err().unwrap();
    assert!(error.downcast_ref::<BadInput>().is_some(), "{error:#}");
    for word in words {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
}

fn corrupt(bytes: &[u8], word: &str) {
    let error = format!("{:#}", decode(bytes, true).unwrap_err());
    assert!(error.contains(word), "no {word:?} in: {error}");
}

fn jpeg() -> Vec<u8> {
    fs::read(fixture("baseline_420.jpg")).unwrap()
}

#[test]
fn places_without_pictures() {
    let root = tempdir().unwrap();
    refuse(&root.path().join("nowhere"), &["no such folder", "nowhere"]);
    refuse(root.path(), &["no pictures in", "it has no files"]);
    fs::write(root.path().join("words.txt"), "words").unwrap();
    refuse(
        root.path(),
        &["no pictures in", "such as words.txt", ".jpg"],
    );
    refuse(
        &root.path().join("words.txt"),
        &["words.txt is no tar file", "expected a folder"],
    );
}

#[test]
fn a_text_file_named_jpg_is_a_corrupt_picture() {
    let root = tempdir().unwrap();
    fs::write(root.path().join("text.jpg"), "once upon a time").unwrap();
    let error = format!("{:#}", open(root.path()).decode(0).unwrap_err());
    assert!(error.contains("text.jpg"), "{error}");
    assert!(error.contains("begins \"once upon a time\""), "{error}");
}

#[test]
fn a_picture_of_one_pixel_is_a_corrupt_picture() {
    let root = tempdir().unwrap();
    let path = root.path().join("dot.png");
    image::save_buffer(path, &[9, 80, 200], 1, 1, image::ColorType::Rgb8).unwrap();
    let error = format!("{:#}", open(root.path()).decode(0).unwrap_err());
    assert!(error.contains("dot.png"), "{error}");
    assert!(error.contains("has 1x1 pixels"), "{error}");
    assert!(error.contains("4x4 and up"), "{error}");
}

fn config(batch: usize) -> LoaderConfig {
    LoaderConfig {
        seed: 0,
        batch,
        px: 8,
        views: 2,
        augment: Augment::default(),
        workers: 2,
        prefetch: 2,
        corrupt_limit: 0.01,
        rows: 0..batch,
        steps: 0..1,
    }
}

#[test]
fn a_batch_larger_than_the_set() {
    let data = Arc::new(Dataset::open(&DataSpec::new("synthetic:N=10")).unwrap());
    let error = Loader::new(data, config(16)).err().unwrap();
    assert!(error.downcast_ref::<BadInput>().is_some());
    let text = error.to_string();
    assert!(
        text.contains("batch is 16 pictures, but the data has 10"),
        "{text}"
    );
}

#[test]
fn cut_short_pictures() {
    for name in [
        "baseline_420.jpg",
        "progressive.jpg",
        "gray.jpg",
        "exif_6.jpg",
    ] {
        let bytes = fs::read(fixture(name)).unwrap();
        corrupt(&bytes[..bytes.len() * 7 / 10], "cut short");
    }
    for name in ["rgb.png", "lossy.webp"] {
        let bytes = fs::read(fixture(name)).unwrap();
        assert!(decode(&bytes[..bytes.len() / 2], true).is_err(), "{name}");
    }
}

/// Sets the frame header's height and width of a JPEG.
fn claim(bytes: &mut [u8], height: u16, width: u16) {
    let start = bytes
        .windows(2)
        .position(|pair| matches!(pair, [0xFF, 0xC0 | 0xC2]));
    let at = start.unwrap() + 5;
    bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
}

#[test]
fn sizes_are_bounded_before_memory_is_taken() {
    let mut bytes = jpeg();
    claim(&mut bytes, 65500, 65500);
    corrupt(
        &bytes,
        "claims 65500x65500 pixels; the limit is 64 megapixels",
    );

    let mut bytes = fs::read(fixture("rgb.png")).unwrap();
    bytes[16..20].copy_from_slice(&3_000_000_u32.to_be_bytes());
    let mut header = [b'I', b'H', b'D', b'R'].to_vec();
    header.extend_from_slice(&bytes[16..29]);
    let crc = crc32(&header);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    corrupt(&bytes, "the limit is 64 megapixels");
}

/// PNG's checksum (the polynomial of ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Whatever is done to a file, decoding ends without a panic, and gives a
/// picture of the size it says or an error.
#[test]
fn damaged_files_never_panic() {
    let mut random = xla_moco::rng::Stream::new(1, xla_moco::rng::Purpose::Test, (0, 0));
    for entry in fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json" || e == "bin") {
            continue;
        }
        let whole = fs::read(&path).unwrap();
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u32) as usize;
                bytes[at] = random.bits() as u8;
            }
            if random.chance(0.3) {
                bytes.truncate(random.below(bytes.len() as u32) as usize);
            }
            if let Ok(picture) = decode(&bytes, true) {
                let size = u64::from(picture.width) * u64::from(picture.height) * 3;
                assert_eq!(size, picture.rgb.len() as u64, "{}", path.display());
            }
        }
    }
}

fn tar_of(names: &[&str]) -> Vec<u8> {
    let picture = jpeg();
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_size(picture.len() as u64);
        builder
            .append_data(&mut header, name, &picture[..])
            .unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn tar_files_cut_short_or_broken() {
    let root = tempdir().unwrap();
    let path = root.path().join("train.tar");
    let whole = tar_of(&["cat/1.jpg", "dog/1.jpg"]);
    // Inside a picture, inside a header, and between two members.
    let member = 512 + jpeg().len().next_multiple_of(512);
    for (len, last) in [
        (member - 600, "after its start"),
        (member + 100, "after cat/1.jpg"),
        (member, "after cat/1.jpg"),
    ] {
        fs::write(&path, &whole[..len]).unwrap();
        refuse(
            &path,
            &["train.tar is cut short", last, "download it again"],
        );
    }
    let mut broken = whole.clone();
    broken[member + 20] ^= 0xFF;
    fs::write(&path, broken).unwrap();
    refuse(&path, &["train.tar is broken after cat/1.jpg"]);
    fs::write(&path, tar_of(&["cat/note.txt"])).unwrap();
    refuse(&path, &["no pictures in", "train.tar"]);
    fs::write(&path, [0x1F, 0x8B, 8, 0]).unwrap();
    refuse(&path, &["compressed with gzip"]);

    fs::write(&path, &whole).unwrap();
    let data = open(&path);
    fs::write(&path, &whole[..member]).unwrap();
    let error = format!("{:#}", data.decode(1).unwrap_err());
    assert!(
        error.contains("dog/1.jpg") && error.contains("shrank"),
        "{error}"
    );
}

#[test]
fn cifar_files_of_the_wrong_length_or_label() {
    let root = tempdir().unwrap();
    let path = root.path().join("data_batch_1.bin");
    fs::write(&path, vec![1; 3073 * 2 - 5]).unwrap();
    for batch in 2..=5 {
        let whole = root.path().join(format!("data_batch_{batch}.bin"));
        fs::write(whole, vec![1; 3073]).unwrap();
    }
    refuse(root.path(), &["6141 bytes", "records of 3073", "CIFAR-10"]);
    fs::write(&path, vec![10; 3073]).unwrap();
    refuse(root.path(), &["record 0", "label 10", "10 classes"]);
    fs::write(&path, []).unwrap();
    refuse(root.path(), &["0 bytes"]);
    let other = root.path().join("other.bin");
    fs::write(&other, [0; 77]).unwrap();
    refuse(&other, &["77 bytes", "3073", "3074"]);
}

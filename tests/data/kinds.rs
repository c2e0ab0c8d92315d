//! Every kind of place that pictures are in.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::tempdir;
use xla_moco::data::decode::decode;
use xla_moco::data::{Dataset, eval_batches};

use crate::{fixture, open, shared, spec};

fn put(root: &Path, name: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(fixture("rgb.png"), path).unwrap();
}

fn names(data: &Dataset) -> Vec<String> {
    (0..data.len()).map(|i| data.name(i)).collect()
}

fn labels(data: &Dataset) -> Vec<Option<u32>> {
    (0..data.len()).map(|i| data.label(i)).collect()
}

fn tar(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn a_pictures_class_is_its_last_folder() {
    let root = tempdir().unwrap();
    for name in [
        "b/dog/2.png",
        "a/cat/1.PNG",
        "a/dog/3.png",
        ".x/cat/4.png",
        "a/cat/._1.png",
    ] {
        put(root.path(), name);
    }
    fs::write(root.path().join("README.txt"), "words").unwrap();
    let data = open(root.path());
    assert_eq!(names(&data), ["a/cat/1.PNG", "a/dog/3.png", "b/dog/2.png"]);
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!(labels(&data), [Some(0), Some(1), Some(1)]);
    assert!(data.is_labelled());
    assert_eq!(data.decode(0).unwrap().width, 45);
}

#[test]
fn a_folder_without_classes_is_unlabelled() {
    let root = tempdir().unwrap();
    put(root.path(), "1.png");
    put(root.path(), "2.png");
    let data = open(root.path());
    assert_eq!(labels(&data), [None, None]);
    assert!(!data.is_labelled());
    assert!(
        Dataset::open_test(&spec(root.path()), &data)
            .unwrap()
            .is_none()
    );
}

#[test]
fn splits_are_found_and_share_their_labels() {
    let root = tempdir().unwrap();
    for name in [
        "train/ant/1.png",
        "train/bee/1.png",
        "train/cow/1.png",
        "val/bee/1.png",
    ] {
        put(root.path(), name);
    }
    let train = Dataset::open_train(&spec(root.path())).unwrap();
    assert_eq!(names(&train), ["ant/1.png", "bee/1.png", "cow/1.png"]);
    for place in [root.path().to_owned(), root.path().join("train")] {
        let test = Dataset::open_test(&spec(&place), &train).unwrap().unwrap();
        assert_eq!(names(&test), ["bee/1.png"]);
        assert_eq!(labels(&test), [Some(1)], "the training set's number");
    }
    assert_eq!(open(root.path()).len(), 4, "open takes all");

    put(root.path(), "val/dog/1.png");
    let error = Dataset::open_test(&spec(root.path()), &train)
        .err()
        .unwrap();
    assert!(error.to_string().contains("class \"dog\""), "{error}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let root = tempdir().unwrap();
    put(root.path(), "cat/1.png");
    std::os::unix::fs::symlink(root.path(), root.path().join("cat/up")).unwrap();
    std::os::unix::fs::symlink(root.path().join("cat/1.png"), root.path().join("2.png")).unwrap();
    assert_eq!(names(&open(root.path())), ["2.png", "cat/1.png"]);
}

#[test]
fn tar_files_with_class_folders() {
    let root = tempdir().unwrap();
    let picture = fs::read(fixture("baseline_444.jpg")).unwrap();
    let long = format!("train/{}/1.jpg", "long".repeat(40));
    tar(
        &root.path().join("train.tar"),
        &[
            ("train/cat/1.jpg", &picture),
            ("train/cat/note.txt", b"words"),
            (&long, &picture),
            ("./train/dog/1.jpg", &picture),
        ],
    );
    tar(
        &root.path().join("test.tar"),
        &[("test/dog/1.jpg", &picture)],
    );
    let train = Dataset::open_train(&spec(root.path())).unwrap();
    assert_eq!(train.classes(), ["cat", "dog", &"long".repeat(40)]);
    assert_eq!(
        names(&train)[..2],
        ["train.tar/train/cat/1.jpg", "train.tar/train/dog/1.jpg"]
    );
    let loose = decode(&picture, true).unwrap();
    let same = |i| train.decode(i).unwrap() == loose;
    assert!((0..3).all(same), "as from a file of its own");
    let file = spec(&root.path().join("train.tar"));
    let test = Dataset::open_test(&file, &train).unwrap().unwrap();
    assert_eq!(labels(&test), [Some(1)]);
    assert_eq!(
        open(root.path()).len(),
        4,
        "a folder of tar files is all of them"
    );
}

#[test]
fn tar_files_with_webdataset_names() {
    let root = tempdir().unwrap();
    let picture = fs::read(fixture("rgb.png")).unwrap();
    tar(
        &root.path().join("shard-000.tar"),
        &[
            ("a/0001.png", &picture),
            ("a/0001.cls", b"10"),
            ("a/0001.json", b"{}"),
        ],
    );
    tar(
        &root.path().join("shard-001.tar"),
        &[
            ("0002.cls", b"9\n"),
            ("0002.png", &picture),
            ("0003.png", &picture),
        ],
    );
    let data = open(root.path());
    assert_eq!(data.classes(), ["9", "10"]);
    assert_eq!(labels(&data), [Some(1), Some(0), None]);
}

/// A record whose red, green and blue planes are told apart.
fn cifar_record(labels: &[u8], base: u8) -> Vec<u8> {
    let plane = |value: u8| (0..1024).map(move |i| if i == 1 { 200 } else { value });
    let pixels = (0..3).flat_map(|c| plane(base + c));
    labels.iter().copied().chain(pixels).collect()
}

#[test]
fn cifar_10_binary_files() {
    let root = tempdir().unwrap();
    let folder = root.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    for batch in 1..=5 {
        let records = [cifar_record(&[3], 10 * batch), cifar_record(&[9], 50)].concat();
        fs::write(folder.join(format!("data_batch_{batch}.bin")), records).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), cifar_record(&[0], 1)).unwrap();
    let train = Dataset::open_train(&spec(root.path())).unwrap();
    assert_eq!(labels(&train), [Some(3), Some(9)].repeat(5));
    assert_eq!(train.name(2), "data_batch_2.bin#00000");
    let picture = train.decode(2).unwrap();
    assert_eq!((picture.width, picture.height), (32, 32));
    assert_eq!(picture.rgb[..9], [20, 21, 22, 200, 200, 200, 20, 21, 22]);
    assert_eq!(train.classes()[3], "3", "without names beside them");
    let test = Dataset::open_test(&spec(root.path()), &train).unwrap();
    assert_eq!(test.unwrap().len(), 1);

    let meta = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(folder.join("batches.meta.txt"), meta).unwrap();
    assert_eq!(open(&folder).classes()[3], "cat");
    assert_eq!(open(&folder.join("test_batch.bin")).len(), 1);
}

#[test]
fn cifar_100_takes_the_fine_label() {
    let root = tempdir().unwrap();
    fs::write(root.path().join("train.bin"), cifar_record(&[7, 77], 5)).unwrap();
    fs::write(root.path().join("test.bin"), cifar_record(&[1, 2], 6)).unwrap();
    let data = Dataset::open_train(&spec(root.path())).unwrap();
    assert_eq!((labels(&data), data.classes().len()), (vec![Some(77)], 100));
    assert_eq!(data.decode(0).unwrap().rgb[..3], [5, 6, 7]);
}

#[test]
fn a_fingerprint_is_of_the_data_and_not_of_its_place() {
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    for root in [&one, &other] {
        put(root.path(), "cat/1.png");
        put(root.path(), "dog/1.png");
    }
    let fingerprint = |root: &Path| open(root).fingerprint().unwrap();
    assert_eq!(fingerprint(one.path()).len(), 64);
    assert_eq!(fingerprint(one.path()), fingerprint(other.path()));
    fs::copy(fixture("rgba.png"), one.path().join("cat/1.png")).unwrap();
    assert_ne!(fingerprint(one.path()), fingerprint(other.path()));
}

#[test]
fn exif_orientation_can_be_turned_off() {
    let root = tempdir().unwrap();
    fs::copy(fixture("exif_6.jpg"), root.path().join("1.jpg")).unwrap();
    let mut spec = spec(root.path());
    let size = |spec: &_| {
        let picture = Dataset::open(spec).unwrap().decode(0).unwrap();
        (picture.width, picture.height)
    };
    assert_eq!(size(&spec), (16, 24));
    spec.exif_orientation = false;
    assert_eq!(size(&spec), (24, 16));
}

#[test]
fn the_cifar_10_tar_files_open_with_labels() {
    let Some(root) = shared("cifar10") else {
        return;
    };
    let train = Dataset::open_train(&spec(&root)).unwrap();
    let test = Dataset::open_test(&spec(&root), &train).unwrap().unwrap();
    assert_eq!((train.len(), test.len()), (50_000, 10_000));
    assert_eq!(train.classes()[..3], ["airplane", "automobile", "bird"]);
    let mut count = [0; 10];
    labels(&train)
        .into_iter()
        .for_each(|label| count[label.unwrap() as usize] += 1);
    assert_eq!(count, [5000; 10]);
    let batch = eval_batches(&Arc::new(test), 32, 50, Some(100), 2)
        .unwrap()
        .next();
    let batch = batch.unwrap().unwrap();
    assert_eq!(
        (batch.ids.len(), batch.pictures.len()),
        (50, 50 * 32 * 32 * 3)
    );
}

//! Data sets as they were published, in small: fixtures that the publishers'
//! tools wrote (tools/reference/datasets.py), and files made here by the
//! publishers' descriptions.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::tempdir;
use xla_moco::data::{Dataset, decode};
use xla_moco::error::BadInput;

use crate::{fixture, open, spec};

/// A file of tests/fixtures/published.
pub fn published(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/fixtures/published").join(name)).unwrap()
}

pub fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn tar_gz(path: &Path, members: &[(&str, &[u8])]) {
    let mut gz = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
    gz.write_all(&tar(members)).unwrap();
    gz.finish().unwrap();
}

pub fn train(root: &Path) -> Dataset {
    Dataset::open_train(&spec(root)).unwrap()
}

pub fn test(root: &Path, train: &Dataset) -> Dataset {
    Dataset::open_test(&spec(root), train).unwrap().unwrap()
}

pub fn labels(data: &Dataset) -> Vec<i64> {
    let label = |i| data.label(i).map_or(-1, i64::from);
    (0..data.len()).map(label).collect()
}

pub fn names(data: &Dataset) -> Vec<String> {
    (0..data.len()).map(|i| data.name(i)).collect()
}

/// What opening says, which must be the user's to mend.
pub fn refusal(path: &Path) -> String {
    let error = Dataset::open_train(&spec(path)).err().unwrap();
    assert!(error.downcast_ref::<BadInput>().is_some(), "{error:#}");
    format!("{error:#}")
}

pub fn refuse(path: &Path, words: &[&str]) {
    let error = refusal(path);
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

/// Pixels as the fixtures have them, row-major RGB from planes.
fn pixels(record: usize) -> Vec<u8> {
    let at = |i: usize| (i % 3) * 1024 + i / 3;
    (0..3072)
        .map(|i| ((7 * record + at(i)) % 251) as u8)
        .collect()
}

#[test]
fn cifar_10_of_the_python_version() {
    let root = tempdir().unwrap();
    let folder = root.path().join("cifar-10-batches-py");
    for batch in 1..=5 {
        write(
            &folder,
            &format!("data_batch_{batch}"),
            published("data_batch_1"),
        );
    }
    write(&folder, "test_batch", published("data_batch_1"));
    write(&folder, "batches.meta", published("batches.meta"));
    for place in [root.path(), &folder] {
        let data = train(place);
        assert_eq!(labels(&data), [6, 9, 0].repeat(5));
        assert_eq!(data.classes()[6..], ["frog", "horse", "ship", "truck"]);
        assert_eq!(data.name(4), "data_batch_2#00001");
        assert_eq!(data.decode(4).unwrap().rgb, pixels(1));
        assert_eq!(test(place, &data).len(), 3);
        assert_eq!(open(place).len(), 18);
    }
    fs::remove_file(folder.join("data_batch_3")).unwrap();
    refuse(
        root.path(),
        &[
            "part of CIFAR-10, but not data_batch_3;",
            "data get cifar10",
        ],
    );
}

#[test]
fn cifar_100_of_the_python_version() {
    let root = tempdir().unwrap();
    write(root.path(), "train", published("test"));
    write(root.path(), "test", published("test"));
    write(root.path(), "meta", published("meta"));
    let data = train(root.path());
    assert_eq!(labels(&data), [49, 33], "the fine labels");
    assert_eq!(
        (data.classes().len(), &*data.classes()[33]),
        (100, "fine_33")
    );
    assert_eq!(data.decode(1).unwrap().rgb, pixels(1));
}

#[test]
fn cifar_archives_as_they_were_downloaded() {
    let root = tempdir().unwrap();
    let batch = published("data_batch_1");
    let meta = published("batches.meta");
    let names = [
        "data_batch_4",
        "data_batch_1",
        "readme.html",
        "test_batch",
        "data_batch_3",
        "batches.meta",
        "data_batch_2",
        "data_batch_5",
    ];
    let paths = names.map(|name| format!("cifar-10-batches-py/{name}"));
    let mut members: Vec<(&str, &[u8])> = vec![("cifar-10-batches-py/", b"")];
    for path in &paths {
        members.push((
            path,
            if path.ends_with("meta") {
                &meta
            } else {
                &batch
            },
        ));
    }
    let archive = root.path().join("cifar-10-python.tar.gz");
    tar_gz(&archive, &members);
    let moved = root.path().join("elsewhere.tgz");
    fs::copy(&archive, &moved).unwrap();
    for place in [root.path(), &archive, &moved] {
        let data = train(place);
        assert_eq!(labels(&data), [6, 9, 0].repeat(5));
        assert_eq!(data.decode(14).unwrap().rgb, pixels(2));
        assert_eq!(data.classes()[0], "airplane");
        assert_eq!(labels(&test(place, &data)), [6, 9, 0]);
    }
    // Unpacked, they are the same data.
    let unpacked = tempdir().unwrap();
    for path in &paths {
        let name = path.rsplit('/').next().unwrap();
        let bytes = if name == "batches.meta" {
            &meta
        } else {
            &batch
        };
        write(unpacked.path(), name, bytes);
    }
    assert_eq!(
        train(&archive).fingerprint().unwrap(),
        train(unpacked.path()).fingerprint().unwrap()
    );

    let record = |labels: &[u8]| [labels, &[9; 3072]].concat();
    let archive = root.path().join("cifar-100-binary.tar.gz");
    tar_gz(
        &archive,
        &[
            ("./cifar-100-binary/", b""),
            ("./cifar-100-binary/train.bin", &record(&[1, 99])),
        ],
    );
    let data = train(&archive);
    assert_eq!((labels(&data), data.classes().len()), (vec![99], 100));
    assert!(
        Dataset::open_test(&spec(&archive), &data)
            .unwrap()
            .is_none()
    );

    let other = root.path().join("images.tar.gz");
    tar_gz(&other, &[("images/1.jpg", b"jpg")]);
    refuse(&other, &["compressed with gzip", "only CIFAR's archives"]);
}

/// The picture whose red is its row, green its column and blue 7, as STL-10
/// stores it: planes, columns first.
fn stl_picture(add: u8) -> Vec<u8> {
    let red = (0..96 * 96).map(|i| (i % 96) as u8 + add);
    let green = (0..96 * 96).map(|i| (i / 96) as u8);
    red.chain(green).chain([7; 96 * 96]).collect()
}

#[test]
fn stl_10_has_columns_first_and_a_part_without_labels() {
    let root = tempdir().unwrap();
    let folder = root.path().join("stl10_binary");
    write(
        &folder,
        "train_X.bin",
        [stl_picture(0), stl_picture(1)].concat(),
    );
    write(&folder, "train_y.bin", [10, 1]);
    write(&folder, "test_X.bin", stl_picture(2));
    write(&folder, "test_y.bin", [3]);
    write(&folder, "unlabeled_X.bin", stl_picture(3).repeat(3));
    let listed = "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n";
    write(&folder, "class_names.txt", listed);
    let data = train(root.path());
    assert_eq!((labels(&data), &*data.classes()[9]), (vec![9, 0], "truck"));
    let rgb = data.decode(1).unwrap().rgb;
    let at = |row: usize, column: usize| &rgb[3 * (row * 96 + column)..][..3];
    assert_eq!(
        (at(0, 0), at(5, 80), at(95, 2)),
        (&[1, 0, 7][..], &[6, 80, 7][..], &[96, 2, 7][..])
    );
    assert_eq!(labels(&test(root.path(), &data)), [2]);
    let (unlabelled, labelled) = Dataset::open_pretrain(&spec(root.path())).unwrap();
    assert_eq!(names(&labelled.unwrap()), names(&data));
    assert_eq!(
        (labels(&unlabelled), unlabelled.is_labelled()),
        (vec![-1; 3], false)
    );
    let named = folder.join("unlabeled_X.bin");
    assert_eq!(names(&open(&named)), names(&unlabelled));
    assert_eq!(open(root.path()).len(), 6);

    fs::remove_file(folder.join("train_y.bin")).unwrap();
    refuse(
        root.path(),
        &["STL-10, but not train_y.bin", "data get stl10"],
    );
    write(&folder, "train_y.bin", [1]);
    refuse(root.path(), &["1 labels for 2 pictures"]);
    write(&folder, "train_y.bin", [1, 11]);
    refuse(root.path(), &["label 1", "is 11"]);
    write(&folder, "train_X.bin", [0; 27_647]);
    refuse(root.path(), &["27647 bytes", "whole pictures of 27648"]);
}

#[test]
fn flowers_102_with_its_matlab_files() {
    let root = tempdir().unwrap();
    write(root.path(), "imagelabels.mat", published("imagelabels.mat"));
    refuse(
        root.path(),
        &[
            "Flowers-102, but not setid.mat, jpg;",
            "data get flowers102",
        ],
    );
    write(root.path(), "setid.mat", published("setid.mat"));
    let jpg = fs::read(fixture("baseline_444.jpg")).unwrap();
    for id in [1, 2, 3, 5, 6] {
        write(root.path(), &format!("jpg/image_{id:05}.jpg"), &jpg);
    }
    let data = train(root.path());
    assert_eq!(
        names(&data),
        ["image_00002.jpg", "image_00005.jpg", "image_00006.jpg"]
    );
    assert_eq!(labels(&data), [76, 0, 101]);
    assert_eq!((data.classes().len(), &*data.classes()[76]), (102, "77"));
    assert_eq!(data.decode(0).unwrap(), decode::decode(&jpg, true).unwrap());
    let error = Dataset::open_test(&spec(root.path()), &data).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("lacks 1 of the 3 pictures"), "{error}");
    assert!(error.contains("image_00004.jpg"), "{error}");
    write(root.path(), "jpg/image_00004.jpg", &jpg);
    assert_eq!(labels(&test(root.path(), &data)), [76, 0, 101]);
    assert_eq!(labels(&open(root.path())), [76, 76, 0, 101, 0, 101]);
}

#[test]
fn pets_with_their_lists() {
    let root = tempdir().unwrap();
    let jpg = fs::read(fixture("baseline_444.jpg")).unwrap();
    let lists = root.path().join("annotations");
    write(
        &lists,
        "trainval.txt",
        "Abyssinian_100 1 1 1\namerican_bulldog_7 2 2 1\n",
    );
    refuse(
        root.path(),
        &[
            "Pets, but not annotations/test.txt, images;",
            "data get pets",
        ],
    );
    write(
        &lists,
        "test.txt",
        "#Image CLASS-ID\nwheaten_terrier_1 3 2 2\nAbyssinian_2 1 1 1\n",
    );
    for name in [
        "Abyssinian_100",
        "american_bulldog_7",
        "wheaten_terrier_1",
        "Abyssinian_2",
    ] {
        write(root.path(), &format!("images/{name}.jpg"), &jpg);
    }
    let data = train(root.path());
    assert_eq!(
        data.classes(),
        ["Abyssinian", "american_bulldog", "wheaten_terrier"]
    );
    assert_eq!(
        names(&data),
        ["Abyssinian_100.jpg", "american_bulldog_7.jpg"]
    );
    assert_eq!(labels(&data), [0, 1]);
    assert_eq!(labels(&test(root.path(), &data)), [0, 2]);
    assert_eq!(open(root.path()).len(), 4);

    write(&lists, "test.txt", "Abyssinian_2 2 1 1\n");
    refuse(
        root.path(),
        &["Abyssinian as class 2, which was american_bulldog"],
    );
    for line in [
        "Abyssinian_2",
        "Abyssinian_2 0 1 1",
        "../../x_2 1 1 1",
        "x 1 1 1",
    ] {
        write(&lists, "test.txt", line);
        refuse(root.path(), &["line 1 of", "expected such as"]);
    }
    write(&lists, "test.txt", "wheaten_terrier_1 5 1 1\n");
    refuse(root.path(), &["3 classes", "without a gap"]);
}

/// The folder of a set, of which nothing is there.
#[test]
fn an_empty_folder_is_no_data_set() {
    let root = tempdir().unwrap();
    let folder: PathBuf = root.path().join("jpg");
    fs::create_dir(&folder).unwrap();
    refuse(root.path(), &["no pictures in"]);
}

//! ImageNet's original files, lists in CSV files, and MATLAB's files.

use std::fs;
use std::path::Path;

use tempfile::tempdir;
use xla_moco::data::{Dataset, decode, mat};

use crate::published::{
    labels, names, published, refusal, refuse, tar, tar_gz, test, train, write,
};
use crate::{fixture, open, spec};

fn imagenet_train(path: &Path, jpg: &[u8]) {
    let inner = |class: &str, count: usize| {
        let names: Vec<String> = (1..=count).map(|i| format!("{class}_{i}.JPEG")).collect();
        let members: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, jpg)).collect();
        tar(&members)
    };
    let (a, b) = (inner("n02119789", 2), inner("n01440764", 1));
    let whole = tar(&[("n02119789.tar", &a), ("n01440764.tar", &b)]);
    fs::write(path, whole).unwrap();
}

#[test]
fn imagenet_from_the_original_tars() {
    let root = tempdir().unwrap();
    let jpg = fs::read(fixture("baseline_444.jpg")).unwrap();
    let train_tar = root.path().join("ILSVRC2012_img_train.tar");
    imagenet_train(&train_tar, &jpg);
    let val_tar = root.path().join("ILSVRC2012_img_val.tar");
    let val = [1, 3, 2].map(|i| format!("ILSVRC2012_val_{i:08}.JPEG"));
    let val: Vec<(&str, &[u8])> = val.iter().map(|name| (&**name, &*jpg)).collect();
    fs::write(&val_tar, tar(&val)).unwrap();

    let data = train(root.path());
    assert_eq!(data.classes(), ["n01440764", "n02119789"]);
    assert_eq!(labels(&data), [0, 1, 1]);
    assert_eq!(
        data.name(1),
        "ILSVRC2012_img_train.tar/n02119789/n02119789_1.JPEG"
    );
    let loose = decode::decode(&jpg, true).unwrap();
    assert!((0..3).all(|i| data.decode(i).unwrap() == loose));

    let missing = Dataset::open_test(&spec(root.path()), &data).err().unwrap();
    assert!(
        missing.to_string().contains("ILSVRC2012_devkit_t12.tar.gz"),
        "{missing}"
    );
    // IDs 3 and 1 are n01440764 and n02119789 in meta.mat.
    let (truth, meta) = (b"3\n1\n3\n", published("meta.mat"));
    let kit = "ILSVRC2012_devkit_t12/data";
    let truth_name = "ILSVRC2012_validation_ground_truth.txt";
    let in_kit = format!("{kit}/{truth_name}");
    let meta_in_kit = format!("{kit}/meta.mat");
    let archive = root.path().join("ILSVRC2012_devkit_t12.tar.gz");
    tar_gz(&archive, &[(&in_kit, truth), (&meta_in_kit, &meta)]);
    for place in [root.path(), &train_tar] {
        assert_eq!(labels(&test(place, &data)), [0, 1, 0]);
    }
    assert_eq!(labels(&open(root.path())), [0, 1, 1, 0, 1, 0]);
    assert_eq!(labels(&open(&val_tar)), [0, 1, 0]);

    fs::remove_file(archive).unwrap();
    write(root.path(), truth_name, truth);
    write(root.path(), "meta.mat", &meta);
    assert_eq!(labels(&test(root.path(), &data)), [0, 1, 0]);
    // Unpacked pictures, in one folder.
    fs::remove_file(&val_tar).unwrap();
    for (name, bytes) in &val {
        write(root.path(), &format!("val/{name}"), bytes);
    }
    let of_folder = test(root.path(), &data);
    assert_eq!(names(&of_folder)[2], "ILSVRC2012_val_00000003.JPEG");
    assert_eq!(labels(&of_folder), [0, 1, 0]);

    write(root.path(), truth_name, "3\n4\n1\n");
    let error = Dataset::open_test(&spec(root.path()), &data).err().unwrap();
    assert!(error.to_string().contains("the class \"4\""), "{error}");
    write(root.path(), truth_name, "3\n1\n");
    let error = Dataset::open_test(&spec(root.path()), &data).err().unwrap();
    assert!(format!("{error:#}").contains("no line in"), "{error:#}");

    let whole = fs::read(&train_tar).unwrap();
    fs::write(&train_tar, &whole[..whole.len() - 2000]).unwrap();
    assert!(refusal(root.path()).contains("cut short"));
}

#[test]
fn lists_of_paths_and_labels() {
    let root = tempdir().unwrap();
    let jpg = fs::read(fixture("baseline_444.jpg")).unwrap();
    for name in ["a.jpg", "b/c, d.jpg", "e.jpg"] {
        write(root.path(), name, &jpg);
    }
    let list = root.path().join("train.csv");
    fs::write(
        &list,
        "path,label\r\na.jpg,dog\r\n\"b/c, d.jpg\",cat\r\ne.jpg\r\n",
    )
    .unwrap();
    write(root.path(), "test.csv", "e.jpg,dog\n");
    for place in [root.path(), &list] {
        let data = train(place);
        assert_eq!(names(&data), ["a.jpg", "b/c, d.jpg", "e.jpg"]);
        assert_eq!(data.classes(), ["cat", "dog"]);
        assert_eq!(labels(&data), [1, 0, -1]);
        assert_eq!(data.decode(1).unwrap(), decode::decode(&jpg, true).unwrap());
        assert_eq!(labels(&test(place, &data)), [1]);
    }
    for (text, words) in [
        ("", "lists no pictures"),
        ("a.jpg,dog,1\n", "line 1 of"),
        ("a.jpg,dog\nnone.jpg,cat\n", "line 2 of"),
        ("a.jpg,\"dog\n", "open quotation mark"),
        (",dog\n", "names no file"),
    ] {
        fs::write(&list, text).unwrap();
        refuse(&list, &[words]);
    }
    fs::write(&list, b"\xff,1").unwrap();
    refuse(&list, &["not UTF-8"]);
}

#[test]
fn matlab_files_that_scipy_wrote() {
    let read = |name: &str| mat::read(&published(name)).unwrap();
    let splits = read("setid.mat");
    assert_eq!(splits["trnid"].counts().unwrap(), [2, 5]);
    assert_eq!(splits["tstid"].counts().unwrap(), [4, 1, 3]);
    let mat::Variable::Struct(fields, rows) = &read("meta.mat")["synsets"] else {
        panic!("no structure");
    };
    let expected = ["ILSVRC2012_ID", "WNID", "words", "num_children", "children"];
    assert_eq!(
        (&fields[..], rows.len()),
        (&expected.map(String::from)[..], 4)
    );
    assert_eq!(rows[1][1], mat::Variable::Text("n02100735".into()));
    assert_eq!(rows[3][4], mat::Variable::Numbers(vec![1.0, 300.0]));
    assert_eq!(rows[0][4], mat::Variable::Numbers(vec![]));
}

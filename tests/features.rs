//! `xla-moco features`: what the files hold is what `knn` counts, in the order
//! of the pictures.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use support::evaluation::{json, refused, run_folder};
use xla_moco::data::{DataSpec, Dataset};

fn run(what: &str, checkpoint: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args([what, "--checkpoint"])
        .arg(checkpoint)
        .args(arguments)
        .output()
        .unwrap()
}

struct Rows {
    features: Vec<Vec<f64>>,
    labels: Vec<i32>,
    names: Vec<String>,
    notes: std::collections::HashMap<String, String>,
}

fn f32s(bytes: &[u8]) -> Vec<f64> {
    let (all, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    all.iter()
        .map(|x| f64::from(f32::from_le_bytes(*x)))
        .collect()
}

fn safetensors(path: &Path) -> Rows {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [features, labels, names] =
        ["features", "labels", "names"].map(|name| file.tensor(name).unwrap());
    assert_eq!((features.dtype(), labels.dtype()), (Dtype::F32, Dtype::I32));
    let dim = features.shape()[1];
    let (labels, _) = labels.data().as_chunks::<4>();
    Rows {
        features: f32s(features.data())
            .chunks(dim)
            .map(<[f64]>::to_vec)
            .collect(),
        labels: labels.iter().map(|x| i32::from_le_bytes(*x)).collect(),
        names: serde_json::from_slice(names.data()).unwrap(),
        notes: metadata.metadata().clone().unwrap(),
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn the_nearest_neighbours_in_the_files_are_those_of_knn() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    let [bank, queries] = [("train", 200), ("test", 40)].map(|(split, count)| {
        let out = temp.path().join(format!("{split}.safetensors"));
        let arguments = ["--split", split, "--out", out.to_str().unwrap(), "--json"];
        let report = json(&run("features", run_dir.root(), &arguments));
        let rows = safetensors(&out);
        assert_eq!((rows.features.len(), rows.names.len()), (count, count));
        assert_eq!(
            serde_json::from_str::<Json>(&rows.notes["protocol"]).unwrap(),
            report
        );
        let sha = report["checkpoint"]["sha256"].as_str().unwrap();
        assert_eq!(
            (sha.len(), &report["data"]["pictures"]),
            (64, &Json::from(count))
        );
        rows
    });
    let right = queries
        .features
        .iter()
        .zip(&queries.labels)
        .filter(|(query, label)| {
            let by = |a: &usize, b: &usize| {
                let [a, b] = [a, b].map(|i| cosine(&bank.features[*i], query));
                a.total_cmp(&b)
            };
            let nearest = (0..bank.features.len()).max_by(by).unwrap();
            bank.labels[nearest] == **label
        });
    let right = right.count();
    let knn = json(&run("knn", run_dir.root(), &["--k", "1", "--json"]));
    assert_eq!(knn["top1"].as_f64().unwrap(), 100.0 * right as f64 / 40.0);
}

#[test]
fn rows_are_in_the_order_of_the_pictures_with_or_without_labels() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    let drawn = Dataset::open(&DataSpec::new("synthetic:K=4,N=8,px=32")).unwrap();
    let save = |index: usize, name: &str| {
        let picture = drawn.decode(index).unwrap();
        let path = temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::save_buffer(&path, &picture.rgb, 32, 32, image::ColorType::Rgb8).unwrap();
    };
    save(0, "z.png");
    save(1, "a, b.png");
    save(2, "m.png");
    let list = temp.path().join("list.csv");
    std::fs::write(&list, "z.png,dog\n\"a, b.png\"\nm.png,cat\nz.png,dog\n").unwrap();
    let out = temp.path().join("rows.npy");
    let arguments = [
        "--data",
        list.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let output = run("features", run_dir.root(), &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("base encoder") && text.contains("SHA-256"),
        "{text}"
    );

    // The beside ones: a list like the one given, and the protocol.
    let csv = std::fs::read_to_string(out.with_extension("csv")).unwrap();
    assert_eq!(
        csv,
        "path,label\nz.png,dog\n\"a, b.png\",\nm.png,cat\nz.png,dog\n"
    );
    let protocol = std::fs::read(out.with_extension("json")).unwrap();
    let protocol: Json = serde_json::from_slice(&protocol).unwrap();
    assert_eq!(protocol["data"]["pictures"], 4);

    let npy = std::fs::read(&out).unwrap();
    assert_eq!(npy[..8], *b"\x93NUMPY\x01\x00");
    let begins = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert_eq!((begins % 64, npy[begins - 1]), (0, b'\n'));
    let rows = f32s(&npy[begins..]);
    let dim = rows.len() / 4;
    let header = std::str::from_utf8(&npy[10..begins]).unwrap();
    let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (4, {dim}), }}");
    assert_eq!(header.trim_end(), expected);
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    assert_eq!(row(0), row(3), "the same picture");
    assert!(cosine(row(0), row(1)) < 0.999_999);

    // Alone, each has the same features.
    for (index, name) in ["z.png", "a, b.png", "m.png"].iter().enumerate() {
        let folder = temp.path().join(index.to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(temp.path().join(name), folder.join("1.png")).unwrap();
        let alone = folder.join("alone.safetensors");
        let arguments = [
            "--data",
            folder.to_str().unwrap(),
            "--out",
            alone.to_str().unwrap(),
        ];
        let output = run("features", run_dir.root(), &arguments);
        assert!(output.status.success());
        let alone = safetensors(&alone);
        assert_eq!(
            (&alone.labels[..], &alone.names[0]),
            (&[-1][..], &"1.png".to_owned())
        );
        let apart = alone.features[0]
            .iter()
            .zip(row(index))
            .map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) < 1e-4);
    }
    let text = ["--data", "synthetic", "--out", "a.txt"];
    refused(
        &run("features", run_dir.root(), &text),
        "ends in .safetensors, .npy or .parquet",
    );
    parquet(run_dir.root(), &list, &rows);
}

#[cfg(not(feature = "parquet"))]
fn parquet(run_dir: &Path, _: &Path, _: &[f64]) {
    let arguments = ["--data", "synthetic", "--out", "a.parquet"];
    refused(
        &run("features", run_dir, &arguments),
        "built without Parquet",
    );
}

/// The same rows in a Parquet file, read record by record.
#[cfg(feature = "parquet")]
fn parquet(run_dir: &Path, list: &Path, expected: &[f64]) {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};

    let out = list.with_extension("parquet");
    let arguments = [
        "--data",
        list.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    assert!(run("features", run_dir, &arguments).status.success());
    let file = SerializedFileReader::new(std::fs::File::open(&out).unwrap()).unwrap();
    let notes = file
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    let protocol = notes.iter().find(|note| note.key == "protocol").unwrap();
    let protocol: Json = serde_json::from_str(protocol.value.as_ref().unwrap()).unwrap();
    assert_eq!(protocol["data"]["pictures"], 4);
    let (mut told, mut features) = (Vec::new(), Vec::new());
    for row in file.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let fields: Vec<Field> = row
            .get_column_iter()
            .map(|(_, field)| field.clone())
            .collect();
        told.push(
            fields[..3]
                .iter()
                .map(Field::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        );
        let list = row.get_list(3).unwrap().elements();
        features.extend(list.iter().map(|field| match field {
            Field::Float(x) => f64::from(*x),
            other => panic!("{other}"),
        }));
    }
    let expected_words = [
        "\"z.png\" 1 \"dog\"",
        "\"a, b.png\" null null",
        "\"m.png\" 0 \"cat\"",
        "\"z.png\" 1 \"dog\"",
    ];
    assert_eq!(told, expected_words);
    assert_eq!(features, expected);
}

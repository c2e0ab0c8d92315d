//! Neighbours against brute force over the features, the data in the page, and
//! what the seed changes.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value as Json, json};

use super::support::evaluation::{json, run_folder};
use super::support::f32_values;
use super::{page, run};

/// Names and features of length 1.
fn features(run_folder: &Path, split: &str, out: &Path) -> (Vec<String>, Vec<Vec<f64>>) {
    let arguments = ["--split", split, "--out", out.to_str().unwrap(), "--json"];
    json(&run("features", run_folder, &arguments));
    let bytes = fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [features, names] = ["features", "names"].map(|name| file.tensor(name).unwrap());
    let unit = |row: &[f32]| {
        let norm = row
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt();
        row.iter().map(|x| f64::from(*x) / norm).collect()
    };
    let rows = f32_values(features.data());
    let rows = rows.chunks(features.shape()[1]).map(unit).collect();
    (serde_json::from_slice(names.data()).unwrap(), rows)
}

#[test]
fn neighbours_are_those_of_the_features_and_the_page_stands_alone() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    let arguments = [
        "--pictures",
        "5",
        "--neighbours",
        "4",
        "--points",
        "30",
        "--json",
    ];
    let report = json(&run("show", run_dir.root(), &arguments));
    let path = run_dir.root().join("show.html");
    assert_eq!(report["path"], path.to_str().unwrap());
    assert_eq!(report["checkpoint"]["step"], 12);
    assert_eq!(report["checkpoint"]["sha256"].as_str().unwrap().len(), 64);
    for (set, pictures) in [("bank", 200), ("queries", 40)] {
        assert_eq!(report[set]["pictures"], pictures);
        assert_eq!(report[set]["fingerprint"].as_str().unwrap().len(), 64);
    }

    // By brute force.
    let [bank, queries] = ["train", "test"].map(|split| {
        let out = temp.path().join(format!("{split}.safetensors"));
        features(run_dir.root(), split, &out)
    });
    let asked = report["neighbours"].as_array().unwrap();
    assert_eq!(asked.len(), 5);
    for query in asked {
        let row = queries
            .0
            .iter()
            .position(|name| query["picture"] == **name)
            .unwrap();
        let cosine = |other: &Vec<f64>| other.iter().zip(&queries.1[row]).map(|(a, b)| a * b).sum();
        let mut all: Vec<(f64, &String)> = bank.1.iter().map(cosine).zip(&bank.0).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near = query["nearest"].as_array().unwrap();
        assert_eq!(near.len(), 4);
        for (found, (cosine, name)) in near.iter().zip(&all) {
            assert!((found["cosine"].as_f64().unwrap() - cosine).abs() < 1e-5);
            assert_eq!(found["picture"], **name);
            assert_eq!(found["right"], json!(found["class"] == query["class"]));
        }
    }

    let (page, data) = page(&path);
    assert_eq!(report["bytes"], page.len());
    assert!(page.len() < 5_000_000 && !page.contains("http:") && !page.contains("https:"));
    for source in page.split("src=\"").skip(1) {
        assert!(source.starts_with("data:image/"), "{:.40}", source);
    }
    // The protocol, for people.
    for words in [
        "5, with 4 neighbours each",
        "--neighbours 4 --points 30",
        report["checkpoint"]["sha256"].as_str().unwrap(),
        report["bank"]["fingerprint"]
            .as_str()
            .unwrap()
            .split_at(12)
            .0,
    ] {
        assert!(page.contains(words), "no {words:?}");
    }
    let near = page.matches("role=\"listitem\"").count();
    assert_eq!(near, 20);

    let map = &data["map"];
    for plane in map["planes"].as_array().unwrap() {
        let points = plane["points"].as_array().unwrap();
        assert_eq!(points.len(), 30);
        let within = |p: &Json| (0..2).all(|axis| p[axis].as_u64() <= Some(10_000));
        assert!(points.iter().all(within));
    }
    let names: Vec<&str> = map["planes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["t-SNE", "PCA"]);
    assert_eq!(
        (
            map["names"].as_array().unwrap().len(),
            map["classes"].as_array().unwrap().len()
        ),
        (30, 4)
    );

    // Of each picture the mean and four heads over 16 patches and the token.
    let looked = data["attention"]["weights"].as_array().unwrap();
    assert_eq!(
        (looked.len(), &report["attention"]["grid"]),
        (5, &json!([4, 4]))
    );
    for rows in looked {
        let rows: Vec<Vec<f64>> = serde_json::from_value(rows.clone()).unwrap();
        assert_eq!(rows.len(), 5);
        for row in &rows {
            assert_eq!(row.len(), 17);
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 2e-3, "{row:?}");
        }
        for at in 0..17 {
            let mean = rows[1..].iter().map(|head| head[at]).sum::<f64>() / 4.0;
            assert!((rows[0][at] - mean).abs() < 2e-3 * mean);
        }
    }
}

#[test]
fn the_seed_alone_chooses_the_pictures() {
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    let checkpoint = run_dir.checkpoint_dir(12);
    let show = |more: &[&str]| {
        let arguments = [&["--json", "--points", "2", "--pictures", "6"][..], more].concat();
        json(&run("show", &checkpoint, &arguments))
    };
    let first = show(&[]);
    // Beside the checkpoint, which stays as it was.
    let path = run_dir.checkpoints_dir().join("show.html");
    assert_eq!(first["path"], path.to_str().unwrap());
    let bytes = fs::read(&path).unwrap();
    assert_eq!(
        show(&["--set", "data.workers=1"])["neighbours"],
        first["neighbours"]
    );
    assert_eq!(show(&[]), first);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(
        json(&run("knn", run_dir.root(), &["--json"]))["checkpoint"]["step"],
        12
    );
    let ids = |report: &Json| {
        let all = report["neighbours"].as_array().unwrap();
        all.iter()
            .map(|query| query["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_ne!(ids(&show(&["--seed", "1"])), ids(&first));
    // A smaller bank is a part of the larger one.
    let some = show(&["--bank", "60", "--neighbours", "3"]);
    assert_eq!(
        (ids(&some), &some["bank"]["pictures"]),
        (ids(&first), &json!(60))
    );
}

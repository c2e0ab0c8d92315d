//! Held-out kNN: search and votes against plain arithmetic, and the command
//! on a checkpoint of untrained variables.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;
use support::evaluation::{json, refused, run_folder};
use support::{f32_bytes, on_each_cpu_plugin};
use xla_moco::eval::extract::Features;
use xla_moco::eval::knn::search;
use xla_moco::rng::{Purpose, Stream};

/// 300 queries: two chunks and a part of a third.
#[test]
fn the_search_is_exhaustive_and_in_order() {
    const DIM: usize = 6;
    let draw = |item: u32, rows: usize| -> (Vec<Vec<f64>>, Features) {
        let mut stream = Stream::new(1, Purpose::Test, (item, 0));
        let unit = |_| {
            let row: Vec<f64> = (0..DIM).map(|_| stream.normal()).collect();
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter().map(|x| x / norm).collect::<Vec<f64>>()
        };
        let rows: Vec<Vec<f64>> = (0..rows).map(unit).collect();
        let narrow: Vec<f32> = rows.iter().flatten().map(|x| *x as f32).collect();
        let features = Features {
            dim: DIM,
            bytes: f32_bytes(&narrow),
            labels: (0..rows.len() as u32).map(|i| i % 7).collect(),
        };
        (rows, features)
    };
    let (bank, bank_features) = draw(0, 1000);
    let (queries, query_features) = draw(1, 300);
    on_each_cpu_plugin(1, |plugin, client| {
        let found = search(client, &bank_features, &query_features, 9, None).unwrap();
        assert_eq!(found.actual, query_features.labels);
        assert_eq!((found.cosines.len(), found.classes.len()), (2700, 2700));
        for (i, query) in queries.iter().enumerate() {
            let dot = |row: &Vec<f64>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f64>();
            let mut all: Vec<(f64, u32)> = bank
                .iter()
                .map(dot)
                .zip(bank_features.labels.clone())
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (j, (cosine, class)) in all[..9].iter().enumerate() {
                let at = 9 * i + j;
                let apart = (f64::from(found.cosines[at]) - cosine).abs();
                assert!(apart < 1e-5, "{plugin}: query {i}, neighbour {j}: {apart}");
                // Two that are equal in f32 may change places.
                let tied = j > 0 && all[j - 1].0 - cosine < 1e-6 || cosine - all[j + 1].0 < 1e-6;
                assert!(
                    tied || found.classes[at] == *class,
                    "{plugin}: query {i}, {j}"
                );
            }
        }
    });
}

fn knn(checkpoint: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .arg("knn")
        .arg("--checkpoint")
        .arg(checkpoint)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn the_command_tells_accuracy_and_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &[]);
    let of_run = json(&knn(run.root(), &["--json", "--k", "5"]));
    let top1 = of_run["top1"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&top1));
    assert_eq!(of_run["k"], 5);
    assert_eq!(of_run["temperature"], 0.07);
    assert_eq!(of_run["bank"]["pictures"], 200);
    assert_eq!(of_run["queries"]["pictures"], 40);
    assert_eq!(of_run["checkpoint"]["step"], 12);
    assert_eq!(of_run["checkpoint"]["sha256"].as_str().unwrap().len(), 64);
    let classes = of_run["per_class"].as_array().unwrap();
    let sum = |key: &str| {
        classes
            .iter()
            .map(|c| c[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!((classes.len(), sum("queries")), (4, 40));
    assert!((top1 - 100.0 * sum("right") as f64 / 40.0).abs() < 1e-9);

    // Pictures that are their own nearest neighbours are all recognised.
    let checkpoint = run.checkpoint_dir(12);
    let same = [
        "--data",
        "synthetic:K=4,N=150,px=32",
        "--test",
        "synthetic:K=4,N=150,px=32",
    ];
    let own = json(&knn(
        &checkpoint,
        &[&same[..], &["--k", "1", "--json"]].concat(),
    ));
    assert_eq!(
        (own["top1"].as_f64(), &own["queries"]["pictures"]),
        (Some(100.0), &150.into())
    );

    let output = knn(&checkpoint, &[&same[..], &["--k", "1"]].concat());
    let told = String::from_utf8_lossy(&output.stdout);
    for words in [
        "kNN top-1 100.00% of 150",
        "temperature 0.07",
        "step        12",
        "by class",
    ] {
        assert!(told.contains(words), "expected {words:?} in: {told}");
    }
}

/// One search serves all pairs, and each is what it is alone.
#[test]
fn neighbours_and_temperatures_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &[]);
    let votes = ["--k", "20,1,3", "--temperature", "0.01,10"];
    let swept = json(&knn(run.root(), &[&votes[..], &["--json"]].concat()));
    let sweep = swept["sweep"].as_array().unwrap();
    let pair = |of: &Json| {
        (
            of["k"].as_u64().unwrap(),
            of["temperature"].as_f64().unwrap(),
        )
    };
    let pairs: Vec<_> = sweep.iter().map(pair).collect();
    let asked = [20, 1, 3].map(|k| [(k, 0.01), (k, 10.0)]);
    assert_eq!(pairs, asked.concat());
    for key in ["top1", "k", "temperature", "per_class", "confusions"] {
        assert_eq!(swept[key], sweep[0][key], "{key}");
    }
    // A single neighbour votes alike at any temperature.
    assert_eq!(sweep[2]["top1"], sweep[3]["top1"]);
    for i in [1, 4] {
        let (k, t) = pairs[i];
        let [k, t] = [k.to_string(), t.to_string()];
        let alone = ["--k", &k, "--temperature", &t, "--json"];
        let alone = json(&knn(run.root(), &alone));
        assert_eq!(alone["sweep"].as_array().unwrap(), &sweep[i..=i]);
        assert_eq!(alone["checkpoint"], swept["checkpoint"]);
    }
    let output = knn(run.root(), &votes);
    let told = String::from_utf8_lossy(&output.stdout);
    let row = |result: &Json| format!("{:.2}%", result["top1"].as_f64().unwrap());
    for result in sweep {
        let (k, t) = pair(result);
        let has = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words == [k.to_string(), t.to_string(), row(result)]
        };
        assert!(told.lines().any(has), "no line of k {k}, T {t} in: {told}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(&folder.path().join("run"), &[]);
    let root = run.root();
    refused(&knn(root, &["--k", "201"]), "more neighbours than the bank");
    for bad in ["0", "-1", "inf", "warm"] {
        refused(
            &knn(root, &[&format!("--temperature={bad}")]),
            "expected a number above 0",
        );
    }
    refused(&knn(root, &["--k", "5,0"]), "--k");
    refused(&knn(root, &["--data", "/no/such/folder"]), "no such folder");
    refused(
        &knn(&folder.path().join("none"), &[]),
        "there is no run folder",
    );

    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for i in 0..3u8 {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([i * 50, 9, 9]));
        picture.save(bare.join(format!("{i}.png"))).unwrap();
    }
    let bare = bare.to_str().unwrap();
    refused(&knn(root, &["--data", bare]), "has no labels");
    refused(
        &knn(root, &["--data", bare, "--test", bare, "--k", "1"]),
        "has no labels",
    );

    let whole = folder.path().join("whole");
    for class in ["a", "b"] {
        std::fs::create_dir_all(whole.join(class)).unwrap();
        std::fs::copy(format!("{bare}/0.png"), whole.join(class).join("0.png")).unwrap();
    }
    let whole = whole.to_str().unwrap();
    refused(&knn(root, &["--data", whole]), "no test split belongs to");
    let more = [
        "--data",
        "synthetic:K=2,N=40,px=32",
        "--test",
        "synthetic:K=3,N=9,px=32",
    ];
    refused(&knn(root, &more), "is not among the 2 classes");

    let config = run.read_config().unwrap().unwrap();
    let mut other = config.clone();
    other["model"]["dim"] = 64.into();
    run.write_config(&other).unwrap();
    refused(&knn(root, &[]), "the run's model needs");
    run.write_config(&config).unwrap();
    let state = run.checkpoint_dir(12).join("state.safetensors");
    let mut bytes = std::fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&state, bytes).unwrap();
    refused(&knn(root, &[]), "damaged");
}

//! The rules of ARCHITECTURE.md that can be read off the sources.

mod checker;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{MODULES, violations};

/// The Rust files below a folder of the package, sorted, with their paths
/// from the package's root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy();
                files.push((name.replace('\\', "/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_sources_keep_the_rules() {
    let files = rust_files("src");
    assert!(files.len() > 100, "only {} files were found", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| violations(name, text))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Long files hide more than one concept.
#[test]
fn no_file_is_long() {
    const LINES: usize = 400;
    for folder in ["src", "tests", "benches"] {
        for (name, text) in rust_files(folder) {
            let lines = text.lines().count();
            assert!(
                lines <= LINES,
                "{name} has {lines} lines, more than {LINES}: make it two"
            );
        }
    }
}

/// A module without a row would be bound by no rule, one without a word on
/// the map would not be found.
#[test]
fn every_module_has_its_rules_and_its_place_on_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|line| line.strip_suffix(';'))
        .collect();
    assert!(
        declared.len() > 10,
        "src/lib.rs declares {declared:?} alone?"
    );
    for module in declared {
        assert!(
            MODULES.iter().any(|ruled| ruled.name == module),
            "tests/architecture/rules.rs has no row for {module}"
        );
        let place = format!("src/{module}");
        assert!(
            map.contains(&place),
            "ARCHITECTURE.md does not mention {place}"
        );
    }
}

/// Randomness has one source, `src/rng.rs`; PJRT is reached by our own
/// bindings; dates are written by hand.
#[test]
fn crates_that_would_break_an_invariant_are_absent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for absent in [
        "rand",
        "fastrand",
        "getrandom",
        "chrono",
        "time",
        "xla",
        "pjrt",
        "tokio",
    ] {
        for line in manifest.lines() {
            let name = line.split(['=', ' ', '.']).next().unwrap_or_default();
            assert_ne!(name.trim_matches('"'), absent, "Cargo.toml: {line}");
        }
    }
}

//! Nothing that is not the state that was written is taken for it.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use xla_moco::checkpoint::{load, load_latest, open, verify};
use xla_moco::error::BadInput;

use super::{run_with, state};

/// Loading must fail as bad input with all these words in the message.
fn refused(path: &Path, words: &[&str]) {
    let error = load(path).expect_err("a checkpoint that is not sound was loaded");
    let text = format!("{error:#}");
    assert!(error.is::<BadInput>(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(verify(path).is_err() || text.contains("header"), "{text}");
}

/// One byte of each part of each file, every bit of it: the header's length,
/// the header, its padding, each tensor, each field of the manifest.
#[test]
fn no_flipped_bit_is_taken_for_state() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let good = load(&path).unwrap();
    let flip = |file: &str, places: &dyn Fn(&[u8]) -> Vec<usize>| {
        let file = path.join(file);
        let whole = fs::read(&file).unwrap();
        for place in places(&whole) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[place] ^= 1 << bit;
                fs::write(&file, &bytes).unwrap();
                match load(&path) {
                    // White space between the manifest's words is no content.
                    Ok(loaded) => assert!(loaded == good && file.ends_with("manifest.json")),
                    Err(error) => assert!(error.is::<BadInput>(), "{error:#}"),
                }
            }
        }
        fs::write(&file, &whole).unwrap();
    };
    flip("state.safetensors", &|bytes| (0..bytes.len()).collect());
    flip("manifest.json", &|bytes| (0..bytes.len()).collect());
    assert_eq!(load(&path).unwrap(), good);
}

#[test]
fn a_file_cut_short_or_longer_is_refused() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    for (name, word) in [("state.safetensors", "bytes"), ("manifest.json", "damaged")] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        for keep in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 2] {
            fs::write(&file, &whole[..keep]).unwrap();
            refused(&path, &["step-00000024", word]);
        }
        let mut longer = whole.clone();
        longer.push(b'x');
        fs::write(&file, &longer).unwrap();
        refused(&path, &[word]);
        fs::remove_file(&file).unwrap();
        refused(&path, &["it has no", name]);
        fs::write(&file, &whole).unwrap();
    }
    load(&path).unwrap();
}

/// A manifest made to agree with a state file of anyone's choosing.
fn forge(path: &Path, state: &[u8], edit: impl FnOnce(&mut serde_json::Value)) {
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    fs::write(path.join("state.safetensors"), state).unwrap();
    let file = path.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    manifest["state_sha256"] = hex(state).into();
    manifest["state_bytes"] = state.len().into();
    edit(&mut manifest);
    manifest["manifest_sha256"] = "".into();
    manifest["manifest_sha256"] = hex(manifest.to_string().as_bytes()).into();
    fs::write(&file, manifest.to_string()).unwrap();
}

#[test]
fn headers_that_lie_are_refused_without_allocating_what_they_say() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let entry = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    // The forger is able: an honest file is loaded.
    forge(
        &path,
        &file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 8),
        |_| {},
    );
    assert_eq!(load(&path).unwrap().1.get("w").unwrap().shape, [2]);

    let huge = u64::MAX - 7;
    for (state, words) in [
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 4),
            "describes",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 0, 8)), 12),
            "describes",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[3]", 0, 8)), 8),
            "safetensors",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 4, 12)), 12),
            "safetensors",
        ),
        (
            file(&format!(r#"{{"w":{}}}"#, entry("[2]", 8, 0)), 8),
            "safetensors",
        ),
        (
            file(
                &format!(r#"{{"w":{}}}"#, entry("[4611686018427387902]", 0, huge)),
                8,
            ),
            "safetensors",
        ),
        (
            file(
                &format!(r#"{{"w":{}}}"#, entry("[4294967296,4294967296]", 0, 8)),
                8,
            ),
            "safetensors",
        ),
        (
            file(
                &format!(
                    r#"{{"v":{},"w":{}}}"#,
                    entry("[2]", 0, 8),
                    entry("[2]", 4, 12)
                ),
                12,
            ),
            "safetensors",
        ),
        (
            file(
                r#"{"w":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
                8,
            ),
            "safetensors",
        ),
        (file("[]", 0), "safetensors"),
        (file(&"[".repeat(100_000), 0), "safetensors"),
        (huge.to_le_bytes().to_vec(), "header says"),
        (1u64.to_le_bytes().to_vec(), "header says"),
        (99_999_999u64.to_le_bytes().to_vec(), "header says"),
    ] {
        forge(&path, &state, |_| {});
        refused(&path, &["state.safetensors is damaged", words]);
    }
}

#[test]
fn another_version_or_step_is_refused() {
    let (_folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let state = fs::read(path.join("state.safetensors")).unwrap();
    for version in [0, 2] {
        forge(&path, &state, |m| m["format_version"] = version.into());
        refused(
            &path,
            &[&format!("format version {version}"), "reads version 1"],
        );
    }
    // A later version may have fields that this build has never heard of.
    forge(&path, &state, |m| {
        m["format_version"] = 7.into();
        m["shards"] = 4.into();
    });
    refused(&path, &["format version 7"]);
    forge(&path, &state, |m| {
        m["format_version"] = 1.into();
        m.as_object_mut().unwrap().remove("shards");
        m["step"] = 25.into();
    });
    refused(&path, &["step 25", "step 24"]);
    fs::write(path.join("manifest.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    refused(&path, &["over"]);
}

#[cfg(unix)]
#[test]
fn links_and_things_that_are_no_folder_are_refused() {
    let (folder, run) = run_with(&[24]);
    let path = run.checkpoint_dir(24);
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    refused(&path, &["no such folder"]);
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    refused(&path, &["link"]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "text").unwrap();
    refused(&path, &["no folder"]);
    fs::remove_file(&path).unwrap();

    fs::rename(&moved, &path).unwrap();
    for name in ["state.safetensors", "manifest.json"] {
        let (file, target) = (path.join(name), folder.path().join(name));
        fs::rename(&file, &target).unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
        refused(&path, &[name, "no regular file"]);
        fs::remove_file(&file).unwrap();
        fs::rename(&target, &file).unwrap();
    }
    load(&path).unwrap();
}

#[test]
fn the_newest_good_one_is_used_and_the_bad_ones_are_named() {
    let (_folder, run) = run_with(&[]);
    assert!(load_latest(&run).unwrap().is_none());
    let error = open(run.root()).unwrap_err();
    assert!(error.to_string().contains("no checkpoint yet"), "{error:#}");

    let (_folder, run) = run_with(&[10, 20, 30]);
    fs::write(run.checkpoint_dir(30).join("state.safetensors"), "short").unwrap();
    fs::remove_file(run.checkpoint_dir(20).join("manifest.json")).unwrap();
    let loaded = load_latest(&run).unwrap().unwrap();
    assert_eq!(loaded.snapshot, state(10, 10));
    assert_eq!(loaded.path, run.checkpoint_dir(10));
    assert_eq!(loaded.skipped.len(), 2);
    assert!(
        loaded.skipped[0].contains("step-00000030"),
        "{:?}",
        loaded.skipped
    );
    assert!(
        loaded.skipped[1].contains("step-00000020"),
        "{:?}",
        loaded.skipped
    );

    fs::remove_dir_all(run.checkpoint_dir(10)).unwrap();
    let error = load_latest(&run).unwrap_err();
    assert!(error.is::<BadInput>());
    assert!(error.to_string().contains("none of the 2"), "{error:#}");
}

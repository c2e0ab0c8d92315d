//! What is no plugin, or an old or partial one, and a plugin that cannot be
//! had: each is told in words that help, and nothing crashes.

use std::path::{Path, PathBuf};
use std::process::Command;

use xla_moco::error::BadInput;
use xla_moco::pjrt::install::{self, ResolveOptions};
use xla_moco::pjrt::{Client, ClientOptions, Error, Plugin, Topology};

/// Compiles the stub; none where there is no C compiler.
fn stub(folder: &Path, name: &str, defines: &[&str]) -> Option<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/stub_plugin.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg(source)
        .status();
    match status {
        Ok(status) => {
            assert!(status.success(), "the stub does not compile");
            Some(library)
        }
        Err(_) => {
            eprintln!("skipped: there is no C compiler");
            None
        }
    }
}

/// The message of a load that is refused as bad input.
fn refused(path: &Path) -> String {
    let error = Plugin::load(path).err().unwrap();
    assert!(error.is::<BadInput>(), "{error:#}");
    let message = error.to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "it names the file: {message}");
    message
}

#[test]
fn a_missing_file_and_a_text_file() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(&folder.path().join("absent.so"));
    assert!(message.contains("no PJRT plugin at"), "{message}");
    assert!(message.contains("give cpu, gpu, tpu"), "{message}");

    let text = folder.path().join("text.so");
    std::fs::write(&text, "certainly not a library\n").unwrap();
    assert!(refused(&text).contains("is not a shared library"));
    std::fs::write(&text, "").unwrap();
    assert!(refused(&text).contains("is not a shared library"));
    // A library cut short behind its first bytes.
    std::fs::write(&text, b"\x7fELF\x02\x01\x01").unwrap();
    let message = refused(&text);
    assert!(
        message.contains("is not a PJRT plugin that works here"),
        "{message}"
    );
    assert!(message.contains("file too short"), "{message}");
}

#[test]
fn a_library_that_is_no_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = stub(
        folder.path(),
        "no_entry",
        &["NO_ENTRY", "MINOR=110", "FUNCTIONS=4"],
    ) else {
        return;
    };
    let message = refused(&library);
    assert!(message.contains("exports no GetPjrtApi"), "{message}");
    let library = stub(
        folder.path(),
        "no_table",
        &["NO_TABLE", "MINOR=110", "FUNCTIONS=4"],
    );
    let message = refused(&library.unwrap());
    assert!(message.contains("returns no function table"), "{message}");
}

#[test]
fn a_plugin_of_an_old_api() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = stub(folder.path(), "old", &["MINOR=54", "FUNCTIONS=100"]) else {
        return;
    };
    let message = refused(&library);
    assert!(message.contains("speaks PJRT API 0.54"), "{message}");
    assert!(message.contains("needs 0.81"), "{message}");
}

/// Its table ends before what is asked, or has a hole there.
#[test]
fn a_plugin_that_lacks_functions() {
    let folder = tempfile::tempdir().unwrap();
    for (name, defines) in [
        ("short", ["MINOR=90", "FUNCTIONS=4"]),
        ("holes", ["MINOR=90", "FUNCTIONS=138"]),
    ] {
        let Some(library) = stub(folder.path(), name, &defines) else {
            return;
        };
        let plugin = Plugin::load(&library).unwrap();
        assert_eq!(plugin.api_version(), (0, 90));
        let error = plugin.attributes().err().unwrap();
        assert!(error.is_unsupported(), "{error}");
        let error = Client::new(&plugin, &ClientOptions::default())
            .err()
            .unwrap();
        let message = format!("{error:#}");
        assert!(
            message.contains("does not offer PJRT_Client_Create"),
            "{message}"
        );
        assert!(message.contains("PJRT API 0.90"), "{message}");
        let error = Topology::new(&plugin, Some("2x2"), &[]).err().unwrap();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}

#[test]
fn a_plugin_that_does_not_start_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = stub(
        folder.path(),
        "fails",
        &["FAILS", "MINOR=90", "FUNCTIONS=4"],
    ) else {
        return;
    };
    let error = Plugin::load(&library).err().unwrap();
    let message = format!("{error:#}");
    assert!(message.contains("fails.so does not start"), "{message}");
    assert!(
        message.contains("PJRT_Plugin_Initialize: the plugin reports Unavailable: the stub is not"),
        "{message}"
    );
}

/// Fetches the CPU plugin in a process of its own, whose environment can be
/// chosen, into an empty cache; gives what it says.
fn fetch(variables: &[(&str, &Path)]) -> String {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "fetch_the_fallback", "--nocapture"])
        .envs(variables.iter().copied())
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    let left: Vec<_> = std::fs::read_dir(cache.path().join("xla-moco/plugins"))
        .unwrap()
        .collect();
    assert!(
        left.is_empty(),
        "what was fetched in part is removed: {left:?}"
    );
    told
}

#[test]
#[ignore = "run by the tests below, each in an environment of its own"]
fn fetch_the_fallback() {
    let error = install::resolve("xla-cpu-pjrt", &ResolveOptions::default()).unwrap_err();
    assert!(error.is::<BadInput>());
    println!("told: {error:#}");
}

#[test]
fn no_python() {
    let empty = tempfile::tempdir().unwrap();
    let told = fetch(&[("PATH", empty.path())]);
    assert!(
        told.contains("told: cannot fetch xla-cpu-pjrt==0.0.1: python3 is not on the PATH"),
        "{told}"
    );
    assert!(told.contains("pip download"), "{told}");
}

#[test]
fn no_network() {
    let empty = tempfile::tempdir().unwrap();
    let told = fetch(&[
        ("PIP_NO_INDEX", Path::new("1")),
        ("PIP_FIND_LINKS", empty.path()),
    ]);
    assert!(
        told.contains("told: pip cannot fetch xla-cpu-pjrt==0.0.1:"),
        "{told}"
    );
    assert!(
        told.contains("No matching distribution found"),
        "pip's own words: {told}"
    );
}

#[test]
fn a_wheel_that_is_not_the_pinned_one() {
    let mirror = tempfile::tempdir().unwrap();
    let known = install::candidates("xla-cpu-pjrt").unwrap()[0];
    forge_wheel(&mirror.path().join(known.wheels[0].file));
    let told = fetch(&[
        ("PIP_NO_INDEX", Path::new("1")),
        ("PIP_FIND_LINKS", mirror.path()),
    ]);
    assert!(
        told.contains(&format!("told: {} has SHA-256 ", known.wheels[0].file)),
        "{told}"
    );
    assert!(told.contains(known.wheels[0].sha256), "{told}");
}

/// A wheel that pip takes for the plugin's.
fn forge_wheel(path: &Path) {
    use std::io::Write;
    let mut wheel = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, content) in [
        (
            "METADATA",
            "Metadata-Version: 2.1\nName: xla_cpu_pjrt\nVersion: 0.0.1\n",
        ),
        (
            "WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
        ),
        ("RECORD", ""),
    ] {
        let name = format!("xla_cpu_pjrt-0.0.1.dist-info/{name}");
        wheel
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        wheel.write_all(content.as_bytes()).unwrap();
    }
    wheel.finish().unwrap();
}

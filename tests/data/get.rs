//! Downloads from a server of our own on the loopback interface, of archives
//! that are made here.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use xla_moco::data::Dataset;
use xla_moco::data::get::{Bounds, Options, PublishedFile, PublishedSet, get, set, unpack};
use xla_moco::error::BadInput;

use crate::server::{Act, Server};
use crate::spec;

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn published(server: &Server, path: &str, bytes: &[u8]) -> PublishedFile {
    let digest = Sha256::digest(bytes);
    PublishedFile {
        url: leaked(format!("{}{path}", server.address)),
        bytes: bytes.len() as u64,
        sha256: leaked(digest.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn set_of(files: Vec<PublishedFile>) -> PublishedSet {
    PublishedSet {
        name: "small",
        title: "A small set",
        licence: "none",
        files: Vec::leak(files),
    }
}

fn quick() -> Options {
    Options {
        pause: Duration::from_millis(5),
        ..Options::default()
    }
}

fn gz(tar: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(tar).unwrap();
    gz.finish().unwrap()
}

/// Records whose bytes hardly compress.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut state = 1u64;
    for name in [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
        "test_batch.bin",
    ] {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let mut bytes: Vec<u8> = (0..3073).map(|_| next()).collect();
        bytes[0] = 4;
        let mut header = tar::Header::new_ustar();
        header.set_size(3073);
        let name = format!("cifar-10-batches-bin/{name}");
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    gz(&builder.into_inner().unwrap())
}

/// A set of one archive and one other file, on a server with a script.
fn small(script: &[Act]) -> (Server, PublishedSet, TempDir) {
    let archive = archive();
    let files: [(&str, &[u8]); 2] = [("/a/small.tar.gz", &archive), ("/a/list.txt", b"words")];
    let server = Server::new(&files, script);
    let set = set_of(
        files
            .map(|(path, bytes)| published(&server, path, bytes))
            .to_vec(),
    );
    (server, set, tempdir().unwrap())
}

fn failure(set: &PublishedSet, root: &Path) -> anyhow::Error {
    let error = get(set, root, &quick(), &mut |_| ()).unwrap_err();
    assert!(!root.join("small").exists(), "a part looks complete");
    error
}

#[test]
fn what_arrives_whole_is_a_data_set() {
    let (server, set, root) = small(&[]);
    let mut last = (0, 0);
    let place = get(&set, root.path(), &quick(), &mut |progress| {
        last = (progress.done, progress.total);
    });
    let place = place.unwrap();
    assert_eq!(last, (5, 5), "the second file's bytes");
    assert_eq!(fs::read(place.join("list.txt")).unwrap(), b"words");
    let train = Dataset::open_train(&spec(&place)).unwrap();
    assert_eq!((train.len(), train.label(0)), (5, Some(4)));
    assert!(Dataset::open_test(&spec(&place), &train).unwrap().is_some());
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Once more does nothing.
    get(&set, root.path(), &quick(), &mut |_| ()).unwrap();
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn a_cut_connection_goes_on_from_its_end() {
    let (server, set, root) = small(&[Act::CutAfter(700), Act::Status(503), Act::CutAfter(300)]);
    get(&set, root.path(), &quick(), &mut |_| ()).unwrap();
    let range = |start: u32| Some(format!("bytes={start}-"));
    assert_eq!(
        server.ranges(),
        [None, range(700), range(700), range(1000), None]
    );
}

#[test]
fn another_call_goes_on_too() {
    let (server, set, root) = small(&[Act::CutAfter(700), Act::Status(500)]);
    let once = Options {
        tries: 1,
        ..quick()
    };
    let error = get(&set, root.path(), &once, &mut |_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("with 700 of"), "{error:#}");
    assert!(!root.path().join("small").exists());
    get(&set, root.path(), &quick(), &mut |_| ()).unwrap();
    assert_eq!(
        server.ranges()[1..3],
        [Some("bytes=700-".to_owned()), Some("bytes=700-".into())]
    );
}

#[test]
fn a_server_without_ranges_starts_over() {
    let (_server, set, root) = small(&[Act::CutAfter(700), Act::NoRanges]);
    get(&set, root.path(), &quick(), &mut |_| ()).unwrap();
    let (server, set, root) = small(&[Act::CutAfter(700), Act::OtherRange, Act::Status(416)]);
    get(&set, root.path(), &quick(), &mut |_| ()).unwrap();
    let ranges = server.ranges();
    assert_eq!(
        ranges[3..],
        [None, None],
        "after 416 from the beginning: {ranges:?}"
    );
}

#[test]
fn errors_of_the_server_are_tried_again_so_often() {
    let (server, set, root) = small(&[Act::Status(500); 9]);
    let error = failure(&set, root.path());
    assert!(
        format!("{error:#}").contains("given up after 5 tries"),
        "{error:#}"
    );
    assert_eq!(server.ranges().len(), 5);
    let (server, set, root) = small(&[Act::Status(403)]);
    let error = failure(&set, root.path());
    assert!(format!("{error:#}").contains("403"), "{error:#}");
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_file_of_another_size_or_content_is_refused() {
    let refused = |change: fn(&mut PublishedFile), act: Act, words: &str| {
        let (_server, set, root) = small(&[act]);
        let mut files = set.files.to_vec();
        change(&mut files[0]);
        let error = failure(&set_of(files), root.path());
        assert!(
            error.chain().any(|cause| cause.is::<BadInput>()),
            "{error:#}"
        );
        assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        // What is wrong is not gone on with.
        let left = fs::metadata(root.path().join(".small.partial/small.tar.gz"));
        assert!(left.is_err() || left.unwrap().len() == 0);
    };
    refused(|file| file.bytes += 1, Act::Serve, "the published one has");
    refused(|file| file.bytes -= 1, Act::Serve, "the published one has");
    refused(|_| (), Act::TooLong, "sends more than");
    let zeros = "0000000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(zeros.len(), 64);
    refused(
        |file| file.sha256 = "0000000000000000000000000000000000000000000000000000000000000000",
        Act::Serve,
        "expected are",
    );
}

/// A tar file of one member, whatever it claims.
fn hostile(name: &str, kind: tar::EntryType, size: u64, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    [header.as_bytes(), &[0; 2048][..]].concat()
}

#[test]
fn hostile_archives_leave_nothing_outside() {
    use tar::EntryType::{Directory, Fifo, GNULongName, Link, Regular, Symlink};
    let bounds = Bounds {
        bytes: 4096,
        members: 3,
    };
    for (tar, words) in [
        (hostile("../out", Regular, 4, ""), "leads out"),
        (hostile("a/../../out", Regular, 4, ""), "leads out"),
        (hostile("/tmp/out", Regular, 4, ""), "leads out"),
        (hostile("../out", Directory, 0, ""), "leads out"),
        (hostile("a", Symlink, 0, "/etc"), "neither file nor folder"),
        (hostile("a", Link, 0, "../out"), "neither file nor folder"),
        (hostile("a", Fifo, 0, ""), "neither file nor folder"),
        (
            hostile("a", GNULongName, 1 << 40, ""),
            "neither file nor folder",
        ),
        (hostile("a", Regular, 4097, ""), "more than 4096 bytes"),
        (hostile("a", Regular, 4096, ""), "cut short"),
        (hostile(&"a/".repeat(40), Directory, 0, ""), "no name of"),
        (
            hostile("a", Directory, 0, "").repeat(1)[..512].repeat(4),
            "over 3 members",
        ),
    ] {
        let root = tempdir().unwrap();
        let (archive, folder) = (root.path().join("a.tar.gz"), root.path().join("in/folder"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&archive, gz(&tar)).unwrap();
        let error = format!("{:#}", unpack(&archive, &folder, bounds).unwrap_err());
        assert!(error.contains(words), "{words}: {error}");
        assert!(!root.path().join("out").exists() && !root.path().join("in/out").exists());
    }
    // A bomb ends at the bound.
    let root = tempdir().unwrap();
    let archive = root.path().join("bomb.tar.gz");
    let mut gz = GzEncoder::new(fs::File::create(&archive).unwrap(), Compression::best());
    gz.write_all(&hostile("a", Regular, 1 << 30, "")[..512])
        .unwrap();
    std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut gz).unwrap();
    gz.finish().unwrap();
    let start = Instant::now();
    assert!(unpack(&archive, root.path(), bounds).is_err());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_command_says_the_licence_and_what_is_wrong() {
    let server = Server::new(&[("/cifar10/cifar-10-binary.tar.gz", b"not it")], &[]);
    let root = tempdir().unwrap();
    let get = |name: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_xla-moco"))
            .args(["data", "get", name, "--dir"])
            .arg(root.path())
            .env("XLA_MOCO_DATA_MIRROR", &server.address)
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    let (code, stderr) = get("cifar10");
    assert_eq!(code, Some(2), "{stderr}");
    let at = |words: &str| {
        stderr
            .find(words)
            .unwrap_or_else(|| panic!("no {words}: {stderr}"))
    };
    assert!(
        at("Licence: no licence is stated") < at("has 6 bytes; the published one has 170052171")
    );
    let (code, stderr) = get("imagenet");
    assert!(code == Some(2) && stderr.contains("account"), "{stderr}");
    let (code, stderr) = get("mnist");
    assert!(
        code == Some(2) && stderr.contains("cifar10, cifar100"),
        "{stderr}"
    );
    let (code, stderr) = get("pets");
    assert!(code == Some(1) && stderr.contains("404"), "{stderr}");
    assert_eq!(set("stl10").unwrap().bytes(), 2_640_397_119);
}

//! Files of weights and of data sets that lie, bomb or would run code: refused at once, in
//! little memory, with words that say why.

mod data_sets;
mod fuzz;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xla_moco::convert::{Hints, Source, read};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What a refusal may take.
const SECONDS: f64 = 1.0;
const BYTES: u64 = 64 << 20;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/convert").join(name)
}

/// A kB count of /proc/self/status, in bytes.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// A zip file as torch.save writes it, with these members.
fn zip_file(path: &Path, members: &[(&str, &[u8])], compression: CompressionMethod) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(compression);
    for (name, data) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap();
}

/// `{"state_dict": {"w": tensor}}`, with a storage of `len` f32 under key 0, a
/// view of it, and `extra` opcodes before the end.
fn state_dict(len: u32, offset: u32, shape: &[u32], strides: &[u32], extra: &[u8]) -> Vec<u8> {
    let int = |n: &u32| [b"J".as_slice(), &n.to_le_bytes()].concat();
    let text = |t: &str| [b"X", &(t.len() as u32).to_le_bytes()[..], t.as_bytes()].concat();
    let tuple = |ints: &[u32]| {
        let ints: Vec<u8> = ints.iter().flat_map(int).collect();
        [b"(".as_slice(), &ints, b"t"].concat()
    };
    [
        b"\x80\x02}".as_slice(),
        &text("state_dict"),
        b"}",
        &text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        b"(",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &int(&len),
        b"tQ",
        &int(&offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtRss",
        extra,
        b".",
    ]
    .concat()
}

/// A file of weights is refused.
fn refused(what: &str, path: &Path, words: &str) {
    refuses(what, words, || {
        let mut source = Source::open(path)?;
        let mut all = 0..source.entries.len();
        all.try_for_each(|index| source.read_f32(index).map(drop))
    });
}

/// Something is refused, with these words, in time and memory.
fn refuses(what: &str, words: &str, read: impl FnOnce() -> anyhow::Result<()>) {
    // The peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let start = Instant::now();
    let before = memory("VmRSS");
    let error = match read() {
        Err(error) => format!("{error:#}"),
        Ok(()) => panic!("{what} was read"),
    };
    assert!(
        error.contains(words),
        "{what}: {words:?} is not in: {error}"
    );
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < SECONDS, "{what} took {seconds} s");
    let grown = memory("VmHWM").saturating_sub(before);
    assert!(grown < BYTES, "{what} took {grown} bytes");
}

/// One test, so that each case is measured by itself.
#[test]
fn hostile_files_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let members = |pickle: &[u8], data: &[u8], words: &str, what: &str| {
        let all = [("a/data.pkl", pickle), ("a/data/0", data)];
        zip_file(&path, &all, CompressionMethod::Stored);
        refused(what, &path, words);
    };

    // Code that Python would run.
    let system = b"\x80\x02cos\nsystem\nX\x07\x00\x00\x00rm -rf /\x85R.";
    members(system, &[], "os.system", "os.system");
    let eval = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.";
    members(eval, &[], "builtins.eval", "eval by STACK_GLOBAL");
    let load = b"\x80\x02ctorch\nload\n)R.";
    members(load, &[], "torch.load", "a function of torch");
    members(b"\x80\x02(ios\nsystem\n.", &[], "opcode 0x69", "INST");
    members(b"\x80\x02\x82\x01.", &[], "opcode 0x82", "EXT1");
    let reduce = b"\x80\x02X\x01\x00\x00\x00a)R.";
    members(reduce, &[], "no global", "a call of a text");
    let class = b"\x80\x02ctorch\nFloatStorage\n)R.";
    members(class, &[], "0 arguments", "a call of a storage's class");

    // Sizes that lie.
    let long = [b"\x80\x02X\xff\xff\xff\xffabc".as_slice(), b"."].concat();
    members(&long, &[], "cut short", "a text of 4 GiB");
    let longer = [b"\x80\x04\x8e".as_slice(), &[0xff; 8], b"."].concat();
    members(&longer, &[], "cut short", "bytes of 2^64 - 1");
    members(
        b"\x80\x02j\xff\xff\xff\xff.",
        &[],
        "never noted",
        "a memo out of nothing",
    );
    members(
        b"\x80\x02.",
        &[],
        "stack is empty",
        "a pickle without a value",
    );
    let nested = [b"\x80\x02".as_slice(), &b"(".repeat(4 << 20)].concat();
    members(&nested, &[], "opcodes", "marks without end");
    let lists = [&b"]".repeat(200_000)[..], &b"a".repeat(60_000)].concat();
    members(&lists, &[], "cut short", "lists in lists");
    let many = [b"\x80\x02(".as_slice(), &b"N".repeat(7 << 20), b"t."].concat();
    members(&many, &[], "opcodes", "values without end");
    let key = [b"\x80\x02X\xff\xff\x3f\x00".as_slice(), &[b'k'; 0x3fffff]].concat();
    let again = b"q\x000(X\x07\x00\x00\x00storagectorch\nFloatStorage\nh\x00h\x00K\x01tq\x010";
    let keys = [&key[..], again, &b"h\x01Q".repeat(100_000), b"."].concat();
    members(
        &keys,
        &[],
        "a storage's name",
        "the same long key over and over",
    );
    let wide = [
        b"\x80\x02ccollections\nOrderedDict\nq\x00(".as_slice(),
        &b"N".repeat(60_000),
        b"tq\x01",
        &b"h\x00h\x01R".repeat(60_000),
    ]
    .concat();
    members(
        &wide,
        &[],
        "60000 arguments",
        "large arguments over and over",
    );

    let zeros = [0; 24];
    let of =
        |len, offset, shape: &[u32], strides: &[u32]| state_dict(len, offset, shape, strides, b"");
    members(
        &of(1 << 30, 0, &[2], &[1]),
        &zeros,
        "larger than the file",
        "a storage of 4 GiB",
    );
    members(
        &of(6, 0, &[7], &[1]),
        &zeros,
        "more elements",
        "a tensor larger than its storage",
    );
    members(
        &of(6, 5, &[2], &[1]),
        &zeros,
        "beyond its storage",
        "an offset",
    );
    members(
        &of(6, 0, &[2, 2], &[1, 5]),
        &zeros,
        "beyond its storage",
        "strides",
    );
    let huge = of(6, 0, &[65_535, 65_537, 65_535, 65_537, 65_537], &[1; 5]);
    members(&huge, &zeros, "more elements", "a product that overflows");
    members(
        &of(7, 0, &[7], &[1]),
        &zeros,
        "24 bytes; expected 28",
        "a storage cut short",
    );
    let deep = of(1, 0, &[1; 9], &[1; 9]);
    members(&deep, &zeros, "at most 8", "nine dimensions");
    members(
        b"\x80\x02]q\x00h\x00a.",
        &[],
        "no dictionary",
        "a list that holds itself",
    );
    members(
        b"\x80\x02}X\x01\x00\x00\x00aN\x73.",
        &[],
        "no state dict",
        "no tensors",
    );

    // Bombs.
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    zip.start_file("a/data.pkl", SimpleFileOptions::default())
        .unwrap();
    for _ in 0..300 {
        zip.write_all(&[0; 1 << 20]).unwrap();
    }
    zip.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    refused("a zip bomb in place of the pickle", &path, "compressed");
    let pickle = of(6, 0, &[6], &[1]);
    zip_file(&path, &[("a/data.pkl", &pickle)], CompressionMethod::Stored);
    refused("no data", &path, "its member a/data/0");
    zip_file(&path, &[("a/b", &[])], CompressionMethod::Stored);
    refused("no pickle", &path, "one data.pkl");
    let two = [("a/data.pkl", &pickle[..]), ("b/data.pkl", &pickle)];
    zip_file(&path, &two, CompressionMethod::Stored);
    refused("two pickles", &path, "this has 2");

    // Other containers.
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
    write(b"");
    refused("nothing", &path, "only 0 bytes");
    write(b"what is this, then?");
    refused("a text", &path, "neither");
    write(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    refused("a header of 2^64 - 1 bytes", &path, "header");
    let header = br#"{"w":{"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,16]}}"#;
    write(&[&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat());
    refused("a shape that lies", &path, "header");
    let header = br#"{"w":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}"#;
    write(&[&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat());
    refused("data that is not there", &path, "describes");
    let deep = [b"{\"a\":".as_slice(), &b"[".repeat(100_000)].concat();
    write(&[&(deep.len() as u64).to_le_bytes()[..], &deep].concat());
    refused("JSON in JSON", &path, "header");
    write(b"\x08\x08\x3a\xff\xff\xff\xff\x0f\x00");
    refused("an ONNX graph longer than its file", &path, "longer");
    write(b"\x08\x08\x10\x01\x10\x01\x10\x01");
    refused("an ONNX model without weights", &path, "only 8 bytes");
    write(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.");
    refused("code in a bare pickle", &path, "os.system");
    write(b"\x80\x02}X\x01\x00\x00\x00aNs.");
    refused("a bare pickle", &path, "none of torch.save");

    data_sets::hostile(folder.path());
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny.pth.tar", "tiny-legacy.pth"] {
        let whole = fs::read(fixture(name)).unwrap();
        let path = folder.path().join(name);
        for part in 0..50 {
            fs::write(&path, &whole[..whole.len() * part / 50]).unwrap();
            refused(name, &path, "cannot read weights");
        }
    }
}

/// The whole way of a file that is damaged but readable.
#[test]
fn a_state_dict_of_another_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let pickle = state_dict(6, 1, &[2], &[3], b"");
    let data: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let all = [("a/data.pkl", &pickle[..]), ("a/data/0", &data)];
    zip_file(&path, &all, CompressionMethod::Stored);
    let mut source = Source::open(&path).unwrap();
    assert_eq!(source.entries[0].name, "w");
    // A view: elements 1 and 4.
    let expected: Vec<u8> = [1f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(source.read_f32(0).unwrap(), expected);
    let error = format!("{:#}", read(&path, None, &Hints::default()).unwrap_err());
    assert!(error.contains("neither a ViT"), "{error}");
}

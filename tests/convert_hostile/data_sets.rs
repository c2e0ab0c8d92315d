//! The same of published data sets: pickles of pictures, MATLAB's files,
//! archives, lists.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use xla_moco::data::{DataSpec, Dataset, mat};

use super::{fuzz::Draws, refuses};

fn published(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/fixtures/published").join(name)).unwrap()
}

fn open(path: &Path) -> anyhow::Result<Dataset> {
    Dataset::open(&DataSpec::new(path.to_str().unwrap()))
}

/// CIFAR's python version in a folder of five times the same file.
struct Cifar(tempfile::TempDir);

impl Cifar {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, pickle: &[u8]) -> PathBuf {
        for batch in 1..=5 {
            let path = self.0.path().join(format!("data_batch_{batch}"));
            fs::write(path, pickle).unwrap();
        }
        self.0.path().to_owned()
    }
}

/// A MATLAB file of these elements, each a type and data.
fn mat_file(elements: &[(u32, &[u8])]) -> Vec<u8> {
    let mut file = vec![b' '; 124];
    file.extend([0, 1, b'I', b'M']);
    for (kind, data) in elements {
        file.extend(kind.to_le_bytes());
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(*data);
    }
    file
}

fn zlib(pieces: usize) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    for _ in 0..pieces {
        zlib.write_all(&[0; 1 << 20]).unwrap();
    }
    zlib.finish().unwrap()
}

/// A matrix: flags of a class, dimensions, the name x, and what follows.
fn matrix(class: u8, dims: [u32; 2], rest: &[u8]) -> Vec<u8> {
    let mut matrix = Vec::new();
    matrix.extend([6, 0, 0, 0, 8, 0, 0, 0, class, 0, 0, 0, 0, 0, 0, 0]);
    matrix.extend([5, 0, 0, 0, 8, 0, 0, 0]);
    dims.iter().for_each(|dim| matrix.extend(dim.to_le_bytes()));
    matrix.extend([1, 0, 1, 0, b'x', 0, 0, 0]);
    matrix.extend(rest);
    matrix
}

/// Each is refused at once.
pub fn hostile(folder: &Path) {
    let cifar = Cifar::new();
    let pickle = |what: &str, pickle: &[u8], words: &str| {
        let place = cifar.put(pickle);
        refuses(what, words, || open(&place).map(drop));
    };
    pickle("code", b"\x80\x02cos\nsystem\nU\x02id\x85R.", "os.system");
    pickle("weights", b"\x80\x02ctorch\nload\n)R.", "torch.load");
    pickle(
        "4 GiB of pixels",
        b"\x80\x02}U\x04dataT\xff\xff\xff\x7f",
        "cut short",
    );
    pickle("no dictionary", b"\x80\x02].", "no dictionary");
    let whole = published("data_batch_1");
    let rows = whole
        .windows(5)
        .position(|w| w == b"K\x03M\x00\x0c")
        .unwrap();
    // The array's shape does not decide what is read, its bytes do.
    let labels = [&whole[..rows + 1], b"\x7f", &whole[rows + 2..]].concat();
    assert_eq!(open(&cifar.put(&labels)).unwrap().len(), 15);
    let at = whole.windows(2).rposition(|w| w == b"K\x06").unwrap();
    let more = [&whole[..at], &b"K\x06".repeat(100_000), &whole[at..]].concat();
    pickle(
        "more labels than pixels",
        &more,
        "307209216 bytes of pixels are expected",
    );
    let beyond = [&whole[..at], b"K\x0a", &whole[at + 2..]].concat();
    pickle("a label beyond", &beyond, "label 10");
    let many = [b"\x80\x02(".as_slice(), &b"N".repeat(7 << 20), b"t."].concat();
    pickle("values without end", &many, "opcodes");

    let mat = |what: &str, bytes: &[u8], words: &str| {
        refuses(what, words, || mat::read(bytes).map(drop));
    };
    mat("nothing", b"", "shorter than the header");
    mat("another kind of file", &[b'x'; 200], "level 5");
    mat(
        "a compressed bomb",
        &mat_file(&[(15, &zlib(300))]),
        "unpacks to more",
    );
    let two = zlib(3);
    mat(
        "two halves of a bomb",
        &mat_file(&[(15, &two), (15, &two)]),
        "unpacks to more",
    );
    let mut lying = mat_file(&[(14, &[0; 64])]);
    lying[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
    mat("an element of 4 GiB", &lying, "cut short");
    let wide = matrix(9, [u32::MAX >> 1, u32::MAX >> 1], &[2, 0, 1, 0, 7, 0, 0, 0]);
    mat(
        "dimensions that overflow",
        &mat_file(&[(14, &wide)]),
        "cannot be in",
    );
    let few = matrix(9, [3, 4], &[2, 0, 1, 0, 7, 0, 0, 0]);
    mat("one number of twelve", &mat_file(&[(14, &few)]), "say 12");
    let mut nested = matrix(9, [1, 1], &[2, 0, 1, 0, 7, 0, 0, 0]);
    for _ in 0..200 {
        // A structure of one field, f, which holds what was made so far.
        let mut rest = vec![
            5, 0, 4, 0, 4, 0, 0, 0, 1, 0, 4, 0, b'f', 0, 0, 0, 14, 0, 0, 0,
        ];
        rest.extend((nested.len() as u32).to_le_bytes());
        rest.extend(&nested);
        nested = matrix(2, [1, 1], &rest);
    }
    mat(
        "structures in structures",
        &mat_file(&[(14, &nested)]),
        "nests over",
    );

    let archive = folder.join("archive.tar.gz");
    let gz = |kind: tar::EntryType, name: &str, size: u64, megabytes: u64| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_cksum();
        let mut gz = GzEncoder::new(File::create(&archive).unwrap(), Compression::best());
        let mut first = tar::Header::new_ustar();
        first.set_path("cifar-10-batches-bin/").unwrap();
        first.set_entry_type(tar::EntryType::Directory);
        first.set_size(0);
        first.set_cksum();
        gz.write_all(first.as_bytes()).unwrap();
        gz.write_all(header.as_bytes()).unwrap();
        std::io::copy(&mut std::io::repeat(0).take(megabytes << 20), &mut gz).unwrap();
        gz.finish().unwrap();
    };
    let batch = "cifar-10-batches-bin/data_batch_1.bin";
    gz(tar::EntryType::Regular, batch, 1 << 40, 1);
    refuses("a member of a TiB", "at most", || open(&archive).map(drop));
    gz(tar::EntryType::Regular, batch, 30_730_000, 1);
    refuses("a member cut short", "cut short", || {
        open(&archive).map(drop)
    });
    gz(tar::EntryType::GNULongName, "././@LongLink", 200 << 20, 200);
    refuses("a name of 200 MB", "", || open(&archive).map(drop));
    fs::write(&archive, b"\x1f\x8b and nothing more").unwrap();
    refuses("no archive", "no tar file is in it", || {
        open(&archive).map(drop)
    });
}

/// What the fuzz loop does to data sets.
pub struct Fuzz {
    cifar: Cifar,
    folder: tempfile::TempDir,
    pickles: Vec<Vec<u8>>,
    mats: Vec<Vec<u8>>,
}

impl Fuzz {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jpg"), b"picture").unwrap();
        Self {
            cifar: Cifar::new(),
            folder,
            pickles: ["data_batch_1", "batches.meta", "test", "meta"]
                .map(published)
                .to_vec(),
            mats: ["imagelabels.mat", "setid.mat", "meta.mat"]
                .map(published)
                .to_vec(),
        }
    }

    /// One changed file, read as far as it goes.
    pub fn round(&self, draws: &mut Draws) {
        let one = |draws: &mut Draws, all: &[Vec<u8>]| {
            let at = draws.below(all.len());
            draws.mutated(&all[at])
        };
        let place = match draws.below(4) {
            0 => self.cifar.put(&one(draws, &self.pickles)),
            1 => {
                let _ = mat::read(&one(draws, &self.mats));
                return;
            }
            2 => {
                let path = self.folder.path().join("list.csv");
                let list = b"path,label\r\n\"a.jpg\",dog\na.jpg,\"a \"\"cat\"\"\"\na.jpg\n";
                fs::write(&path, draws.mutated(list)).unwrap();
                path
            }
            _ => {
                let path = self.folder.path().join("train_X.bin");
                fs::write(&path, draws.mutated(&[7; 27_648])).unwrap();
                fs::write(path.with_file_name("train_y.bin"), draws.mutated(&[3])).unwrap();
                path
            }
        };
        if let Ok(data) = open(&place) {
            for index in 0..data.len() {
                let _ = (data.name(index), data.label(index), data.decode(index));
            }
        }
    }
}

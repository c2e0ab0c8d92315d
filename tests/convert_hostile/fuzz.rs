//! A fuzz loop over the parsers: `XLA_MOCO_FUZZ_SECONDS` says for how long,
//! `XLA_MOCO_FUZZ_SEED` from where.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use xla_moco::convert::{Hints, Source, read};
use xla_moco::pickle::Pickle;
use zip::CompressionMethod;

use super::data_sets::Fuzz;
use super::{BYTES, fixture, memory, zip_file};

/// SplitMix64.
pub struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// The bytes with some changes.
    pub fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                break;
            }
            // Where the structure is: at both ends as often as anywhere.
            let reach = match self.below(3) {
                0 => bytes.len().min(2048),
                _ => bytes.len(),
            };
            let at = match self.below(2) {
                0 => self.below(reach),
                _ => bytes.len() - 1 - self.below(reach),
            };
            match self.below(6) {
                0 => bytes[at] = self.next() as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => {
                    let many = [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
                    let end = (at + 1 + self.below(8)).min(bytes.len());
                    bytes[at..end].copy_from_slice(&many[..end - at]);
                }
                4 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
                _ => {
                    let end = (at + self.below(64)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        bytes
    }
}

/// A zip file's one pickle.
fn pickle_of(path: &Path) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut names = zip.file_names().map(|name| name.unwrap().into_owned());
    let name = names.find(|name| name.ends_with("data.pkl")).unwrap();
    drop(names);
    let mut bytes = Vec::new();
    std::io::copy(&mut zip.by_name(&name).unwrap(), &mut bytes).unwrap();
    bytes
}

/// Whatever is done to good files, the parsers end with weights, pictures or a refusal.
#[test]
fn mutated_files_never_panic() {
    let number = |key: &str, default: u64| {
        let told = std::env::var(key).ok();
        told.map_or(default, |told| told.parse().expect("a number"))
    };
    let end = Instant::now() + Duration::from_secs(number("XLA_MOCO_FUZZ_SECONDS", 5));
    let mut draws = Draws(number("XLA_MOCO_FUZZ_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");

    let zipped = fs::read(fixture("tiny.pth.tar")).unwrap();
    let pickle = pickle_of(&fixture("tiny.pth.tar"));
    let legacy = fs::read(fixture("tiny-legacy.pth")).unwrap();
    let safetensors = fs::read(fixture("expected.safetensors")).unwrap();
    let onnx = {
        let (mut tensor, mut graph) = (Vec::new(), Vec::new());
        tensor.extend(b"\x08\x02\x10\x01\x42\x0ebase_encoder.w\x4a\x08");
        tensor.extend([0; 8]);
        graph.extend([0x2a, tensor.len() as u8]);
        graph.extend(tensor);
        let model = [b"\x08\x08\x3a".as_slice(), &[graph.len() as u8], &graph];
        let metadata = b"\x72\x06\x0a\x01a\x12\x01b";
        [model.concat(), metadata.to_vec()].concat()
    };
    fs::write(&path, &onnx).unwrap();
    assert_eq!(Source::open(&path).unwrap().entries[0].shape, [2]);

    let data_sets = Fuzz::new();
    let before = memory("VmRSS");
    let (mut rounds, mut read_whole) = (0u64, 0u64);
    while Instant::now() < end {
        rounds += 1;
        let bytes = match draws.below(7) {
            6 => {
                data_sets.round(&mut draws);
                continue;
            }
            0 => draws.mutated(&zipped),
            1 => draws.mutated(&legacy),
            2 => draws.mutated(&safetensors),
            3 => draws.mutated(&onnx),
            4 => {
                // A good container of a bad pickle.
                let pickle = draws.mutated(&pickle);
                let all = [("a/data.pkl", &pickle[..]), ("a/data/0", &[0; 64])];
                zip_file(&path, &all, CompressionMethod::Stored);
                fs::read(&path).unwrap()
            }
            _ => {
                let _ = Pickle::read(&draws.mutated(&pickle));
                continue;
            }
        };
        fs::write(&path, bytes).unwrap();
        if let Ok(mut source) = Source::open(&path) {
            let all = 0..source.entries.len();
            read_whole += u64::from(all.into_iter().all(|i| source.read_f32(i).is_ok()));
            let _ = read(&path, None, &Hints::default());
        }
    }
    let grown = memory("VmHWM").saturating_sub(before);
    eprintln!(
        "{rounds} rounds, {read_whole} files read whole, {} MB at most",
        grown >> 20
    );
    assert!(rounds > 20, "only {rounds} rounds");
    // Beside this one, another test of this binary may run.
    assert!(grown < 2 * BYTES, "{grown} bytes");
}

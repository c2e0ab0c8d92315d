//! The input pipeline against outside references and hostile files.

#[cfg(feature = "download")]
#[path = "data/get.rs"]
mod get;
#[path = "data/hostile.rs"]
mod hostile;
#[path = "data/kinds.rs"]
mod kinds;
#[path = "data/lists.rs"]
mod lists;
#[path = "data/parity.rs"]
mod parity;
#[path = "data/published.rs"]
mod published;
#[cfg(feature = "download")]
#[path = "data/server.rs"]
mod server;
#[path = "data/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};

use xla_moco::data::{DataSpec, Dataset};

/// A file or folder of tests/fixtures/data.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/data")
        .join(name)
}

fn spec(path: &Path) -> DataSpec {
    DataSpec::new(path.to_str().unwrap())
}

fn open(path: &Path) -> Dataset {
    Dataset::open(&spec(path)).unwrap()
}

/// A folder outside the repository that only some machines have.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

//! `xla-moco show`: what the page holds is what other commands and the run's own
//! draws say, and it needs nothing but itself.

mod browser;
mod neighbours;
mod pairs;
mod refusals;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

fn run(what: &str, checkpoint: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xla-moco"))
        .args([what, "--checkpoint"])
        .arg(checkpoint)
        .args(arguments)
        .output()
        .unwrap()
}

/// The page, and the data in it.
fn page(path: &Path) -> (String, Json) {
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let data = serde_json::from_str(data).unwrap();
    (page, data)
}

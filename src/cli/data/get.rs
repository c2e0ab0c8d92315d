//! `xla-moco data get`.

use std::path::PathBuf;

use anyhow::Result;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::print;
use crate::data::get::{self, MIRROR, Options, Progress};

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// cifar10, cifar100, flowers102, pets or stl10
    name: String,
    /// Folder in which a folder of this name is made.
    #[arg(long, value_name = "DIR", default_value = "data")]
    dir: PathBuf,
}

pub fn run(args: &GetArgs) -> Result<()> {
    let set = get::set(&args.name)?;
    tracing::info!(
        "{}: {} to download. Licence: {}",
        set.title,
        HumanBytes(set.bytes()),
        set.licence
    );
    let options = Options {
        mirror: std::env::var(MIRROR)
            .ok()
            .filter(|mirror| !mirror.is_empty()),
        ..Options::default()
    };
    // On stderr, and nothing where that is no terminal.
    let bar = ProgressBar::new(0);
    let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template)?);
    let mut current = String::new();
    let mut progress = |progress: Progress| {
        if current != progress.file {
            current = progress.file.to_owned();
            bar.set_message(current.clone());
            bar.set_length(progress.total);
            bar.reset_eta();
        }
        bar.set_position(progress.done);
    };
    let place = get::get(set, &args.dir, &options, &mut progress);
    bar.finish_and_clear();
    print(&format!("{}", place?.display()))
}

//! `xla-moco data`: make pictures, check pictures, get pictures.

mod get;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::bad_input;
use crate::data::{DataSpec, Dataset, Pool, SyntheticSpec};

/// Jobs under way for each thread: enough to keep it busy.
const AHEAD: u64 = 16;

#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write procedural pictures as PNG files in class folders.
    ///
    /// The classes are textured shapes whose colour, place, size, rotation and
    /// ground vary, so that colour alone tells nothing of the class.
    ///
    /// Example: xla-moco data synth --out pictures --classes 8 --images 256 --size 64
    Synth(SynthArgs),
    /// Decode every picture; report what is there and what is corrupt.
    ///
    /// Exits with 2 if any picture is corrupt. Example: xla-moco data check train.tar --json
    Check(CheckArgs),
    /// Download a data set from its publishers, check it and unpack it.
    ///
    /// Goes on where it was stopped. Says the licence first. The folder's path,
    /// which is printed, is what --data takes; docs/data.md has the data sets.
    /// XLA_MOCO_DATA_MIRROR=ADDRESS takes the files from ADDRESS/NAME/FILE.
    ///
    /// Example: xla-moco data get cifar10 --dir data
    Get(get::GetArgs),
}

#[derive(Args, Debug)]
struct SynthArgs {
    /// Folder to make; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of classes.
    #[arg(long, default_value_t = 8)]
    classes: u32,
    /// Number of pictures in all.
    #[arg(long, default_value_t = 4096)]
    images: u32,
    /// Width and height in pixels.
    #[arg(long, value_name = "PX", default_value_t = 64)]
    size: u32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// What `train --data` takes: see docs/data.md.
    path: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// [`bad_input!`] on bad arguments or data (so also if `check` found a corrupt
/// picture); other errors if files cannot be read or written.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        Command::Synth(args) => synth(args),
        Command::Check(args) => check(args),
        Command::Get(args) => get::run(args),
    }
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on 0..count in parallel; gives the results in order to `each`.
fn in_parallel<R: Send + 'static>(
    count: u32,
    work: impl Fn(u32) -> R + Clone + Send + 'static,
    mut each: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let threads = threads();
    let mut pool = Pool::new(threads, || work.clone())?;
    let mut next = 0;
    loop {
        while next < count && pool.under_way() < AHEAD * threads as u64 {
            pool.submit(next);
            next += 1;
        }
        match pool.take() {
            Some(result) => each(result?)?,
            None => return Ok(()),
        }
    }
}

fn synth(args: &SynthArgs) -> Result<()> {
    let spec = SyntheticSpec {
        classes: args.classes,
        images: args.images,
        px: args.size,
        seed: args.seed,
    };
    spec.check()?;
    let out = args.out.clone();
    let making = || format!("making {}", args.out.display());
    if out.exists() && fs::read_dir(&out).with_context(making)?.next().is_some() {
        return Err(bad_input!(
            "{} exists and is not empty; give another --out, or remove it",
            out.display()
        ));
    }
    for class in 0..spec.classes {
        fs::create_dir_all(out.join(SyntheticSpec::class_name(class))).with_context(making)?;
    }
    let write = move |index: u32| -> Result<()> {
        let class = SyntheticSpec::class_name(spec.class_of(index));
        let file = format!("{:06}.png", index / spec.classes + 1);
        let path = out.join(class).join(file);
        let picture = spec.render(index);
        image::save_buffer(
            &path,
            &picture.rgb,
            picture.width,
            picture.height,
            image::ColorType::Rgb8,
        )
        .with_context(|| format!("writing {}", path.display()))
    };
    in_parallel(args.images, write, |written| written)?;
    print(&format!(
        "wrote {} pictures of {} classes to {}",
        args.images,
        args.classes,
        args.out.display()
    ))
}

/// What `check` found.
#[derive(Serialize)]
struct Report {
    path: String,
    kind: String,
    pictures: usize,
    /// Pictures of each class, by its name.
    classes: BTreeMap<String, usize>,
    unlabelled: usize,
    width: Extent,
    height: Extent,
    corrupt: Vec<CorruptPicture>,
    fingerprint: String,
}

/// Of the pictures that decode; zeros if none does.
#[derive(Default, Serialize)]
struct Extent {
    min: u32,
    max: u32,
    mean: f64,
}

#[derive(Serialize)]
struct CorruptPicture {
    name: String,
    error: String,
}

fn check(args: &CheckArgs) -> Result<()> {
    let data = Arc::new(Dataset::open(&DataSpec::new(&args.path))?);
    let report = examine(&args.path, &data)?;
    if args.json {
        print(&serde_json::to_string(&report)?)?;
    } else {
        print(&describe(&report))?;
    }
    if report.corrupt.is_empty() {
        return Ok(());
    }
    Err(bad_input!(
        "{} of {} pictures in {} are corrupt; mend or remove them",
        report.corrupt.len(),
        report.pictures,
        args.path
    ))
}

fn examine(path: &str, data: &Arc<Dataset>) -> Result<Report> {
    let mut classes: BTreeMap<String, usize> = data
        .classes()
        .iter()
        .map(|name| (name.clone(), 0))
        .collect();
    let mut unlabelled = 0;
    for index in 0..data.len() {
        match data.label(index) {
            Some(label) => {
                let name = &data.classes()[label as usize];
                *classes.entry(name.clone()).or_default() += 1;
            }
            None => unlabelled += 1,
        }
    }
    let mut sizes = Vec::new();
    let mut corrupt = Vec::new();
    let decoder = data.clone();
    let decode = move |index: u32| {
        let picture = decoder.decode(index as usize);
        let size = picture.map(|picture| (picture.width, picture.height));
        (index, size)
    };
    in_parallel(data.len() as u32, decode, |(index, size)| {
        match size {
            Ok(size) => sizes.push(size),
            Err(error) => corrupt.push(CorruptPicture {
                name: data.name(index as usize),
                // The outermost context is the name.
                error: error
                    .chain()
                    .skip(1)
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(": "),
            }),
        }
        Ok(())
    })?;
    Ok(Report {
        path: path.to_owned(),
        kind: data.kind(),
        pictures: data.len(),
        classes,
        unlabelled,
        width: extent(sizes.iter().map(|size| size.0)),
        height: extent(sizes.iter().map(|size| size.1)),
        corrupt,
        fingerprint: data.fingerprint()?,
    })
}

fn extent(values: impl ExactSizeIterator<Item = u32> + Clone) -> Extent {
    let (min, max) = (values.clone().min(), values.clone().max());
    let count = values.len().max(1) as f64;
    Extent {
        min: min.unwrap_or(0),
        max: max.unwrap_or(0),
        mean: values.map(f64::from).sum::<f64>() / count,
    }
}

fn describe(report: &Report) -> String {
    let mut lines = vec![format!(
        "{}: {} pictures ({}), {} classes, {} unlabelled",
        report.path,
        report.pictures,
        report.kind,
        report.classes.len(),
        report.unlabelled
    )];
    for (name, Extent { min, max, mean }) in [("width", &report.width), ("height", &report.height)]
    {
        lines.push(format!("{name:8}{min} to {max} px, mean {mean:.1}"));
    }
    for (name, count) in &report.classes {
        lines.push(format!("  {count:>8}  {name}"));
    }
    lines.push(format!("fingerprint {}", report.fingerprint));
    lines.push(format!("corrupt: {}", report.corrupt.len()));
    for CorruptPicture { name, error } in &report.corrupt {
        lines.push(format!("  {name}: {error}"));
    }
    lines.join("\n")
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        data: DataArgs,
    }

    fn run_line(line: &[&str]) -> Result<()> {
        let cli = Cli::try_parse_from([&["data"], line].concat())?;
        run(&cli.data)
    }

    fn text(path: &Path) -> String {
        path.to_string_lossy().into_owned()
    }

    #[test]
    fn what_synth_writes_is_what_the_generator_draws() {
        let folder = tempfile::tempdir().unwrap();
        let out = text(&folder.path().join("pictures"));
        let line = ["synth", "--out", &out, "--classes", "3", "--images", "7"];
        let line = [&line[..], &["--size", "16", "--seed", "4"]].concat();
        run_line(&line).unwrap();
        let data = Dataset::open(&DataSpec::new(&out)).unwrap();
        assert_eq!(data.len(), 7);
        assert_eq!(data.classes(), ["class_00", "class_01", "class_02"]);
        assert_eq!(data.name(0), "class_00/000001.png");
        let drawn = Dataset::open(&DataSpec::new("synthetic:K=3,N=7,px=16,seed=4")).unwrap();
        // Index 4 is the second picture of class 1.
        let at = (0..7).find(|&i| data.name(i) == "class_01/000002.png");
        let at = at.unwrap();
        assert_eq!(data.decode(at).unwrap(), drawn.decode(4).unwrap());
        assert_eq!(data.label(at), Some(1));

        let error = run_line(&line).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }

    #[test]
    fn check_counts_and_names_what_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let out = text(folder.path());
        run_line(&["synth", "--out", &out, "--classes", "2", "--images", "4"]).unwrap();
        run_line(&["check", &out]).unwrap();
        fs::write(folder.path().join("class_00/note.jpg"), "no picture").unwrap();

        let data = Arc::new(Dataset::open(&DataSpec::new(&out)).unwrap());
        let report = examine(&out, &data).unwrap();
        assert_eq!((report.pictures, report.unlabelled), (5, 0));
        assert_eq!(report.classes["class_00"], 3);
        assert_eq!((report.width.min, report.height.mean), (64, 64.0));
        assert_eq!(report.corrupt.len(), 1);
        assert_eq!(report.corrupt[0].name, "class_00/note.jpg");
        assert!(report.corrupt[0].error.starts_with("expected a JPEG"));
        let error = run_line(&["check", &out, "--json"]).unwrap_err();
        assert!(error.to_string().contains("1 of 5 pictures"), "{error}");
    }
}

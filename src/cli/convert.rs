//! `xla-moco convert`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::evaluation::client;
use super::{PjrtArgs, print};
use crate::bad_input;
use crate::config::{Backbone, Block, Gpu, RunConfig};
use crate::convert::{self, Hints, Layout, Target, Weights};

/// Take weights from other tools, and give weights to them
///
/// Reads the authors' .pth.tar files, weights of timm, DINO, MAE, Hugging Face
/// and torchvision, runs and checkpoints; pickles are read without executing
/// anything. Every tensor of the backbone must find its place. Beside the
/// weights stand convert.json, what they do not say, and parity.safetensors,
/// features of two fixed pictures to compare with in the other tool.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  xla-moco convert --in vit-s-300ep.pth.tar --to timm --out vit-s
  xla-moco convert --in runs/mine --to hf --out mine-hf
  xla-moco convert --in dino_deitsmall16_pretrain.pth --from dino --to xla-moco --out runs/dino
  xla-moco convert --verify vit-s")]
pub struct Args {
    /// A file of weights, a run, a checkpoint, or a folder of another tool
    #[arg(
        long = "in",
        value_name = "FILE|DIR",
        required_unless_present = "verify"
    )]
    pub input: Option<PathBuf>,

    /// Whose names the tensors have; by default found out from the names
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub from: Option<Layout>,

    /// For which tool
    #[arg(
        long,
        value_enum,
        value_name = "TOOL",
        required_unless_present = "verify"
    )]
    pub to: Option<Target>,

    /// The folder to write: a new one
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    pub out: Option<PathBuf>,

    /// Attention heads, where nothing in the file tells
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,

    /// Side of a picture in pixels, where nothing in the file tells
    #[arg(long, value_name = "N")]
    pub image_size: Option<usize>,

    /// Mean of red, green and blue in 0..1, where nothing in the file tells
    /// (ImageNet's by default)
    #[arg(long, value_name = "R,G,B", value_parser = three)]
    pub mean: Option<[f64; 3]>,

    /// Their standard deviations
    #[arg(long, value_name = "R,G,B", value_parser = three)]
    pub std: Option<[f64; 3]>,

    /// Pictures a call of the StableHLO program takes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,

    /// Instead: compute the features of a folder that convert wrote again, and
    /// compare
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["input", "from", "to", "out", "heads", "image_size", "mean", "std"]
    )]
    pub verify: Option<PathBuf>,

    #[command(flatten)]
    pub pjrt: PjrtArgs,
}

fn three(text: &str) -> Result<[f64; 3], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| format!("found {text:?}; expected three numbers such as 0.5,0.5,0.5"))
}

/// # Errors
/// [`bad_input!`] for weights that cannot be used, and a model that the other
/// tool does not have; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    if let Some(folder) = &args.verify {
        return verify(folder, &args.pjrt);
    }
    let (Some(input), Some(to), Some(out)) = (&args.input, args.to, &args.out) else {
        return Err(bad_input!(
            "convert needs --in, --to and --out, or --verify"
        ));
    };
    let hints = Hints {
        heads: args.heads,
        image_size: args.image_size,
        mean: args.mean,
        std: args.std,
    };
    let weights = convert::read(input, args.from, &hints)?;
    print(&report(&weights)?)?;
    let (client, cache) = client(&args.pjrt, &Gpu::default())?;
    let pictures = convert::pictures(weights.config.model.image_size);
    let output = convert::features(&client, cache.as_ref(), &weights, &pictures)?;
    convert::write(&weights, to, out, args.batch.into(), &output)?;
    print(&format!(
        "written:       {} for {}, with a parity vector of {} features\n",
        out.display(),
        to.name(),
        output.len()
    ))
}

fn verify(folder: &Path, pjrt: &PjrtArgs) -> Result<()> {
    let (client, cache) = client(pjrt, &Gpu::default())?;
    let verified = convert::verify(folder, &client, cache.as_ref())
        .with_context(|| format!("verifying {}", folder.display()))?;
    print(&format!(
        "{}: {} features as stored, {:.1e} off, by {}\n",
        folder.display(),
        verified.features,
        verified.distance,
        verified.by
    ))
}

/// What was found, and that all of it was matched.
fn report(weights: &Weights) -> Result<String> {
    let found = &weights.found;
    let mut text = String::new();
    let tensors = weights.backbone.len();
    writeln!(text, "read:          {}", found.path.display())?;
    writeln!(text, "SHA-256:       {}", found.sha256)?;
    writeln!(
        text,
        "matched:       {tensors} of {tensors} tensors of the backbone, {} layout",
        found.layout.name()
    )?;
    if !weights.beside.is_empty() {
        writeln!(
            text,
            "beside it:     {} tensors of heads and momentum encoder, for --to xla-moco",
            weights.beside.len()
        )?;
    }
    for (what, count) in &found.aside {
        writeln!(text, "left aside:    {count} tensors of {what}")?;
    }
    writeln!(text, "model:         {}", model(&weights.config))?;
    if weights.heads().is_some() {
        writeln!(text, "heads by:      {}", found.heads_by)?;
    }
    let augment = &weights.config.augment;
    writeln!(
        text,
        "normalisation: mean {:?}, std {:?}",
        augment.mean, augment.std
    )?;
    writeln!(
        text,
        "features:      {}",
        weights.config.model.features_are()
    )?;
    Ok(text)
}

/// The model in words.
fn model(config: &RunConfig) -> String {
    let px = config.model.image_size;
    match &config.model.backbone {
        Backbone::Vit(vit) => format!(
            "ViT, {} blocks of width {} with {} heads, patches of {}, {px} px, layer norm eps 1e-6",
            vit.blocks, vit.dim, vit.heads, vit.patch
        ),
        Backbone::ResNet(net) => format!(
            "ResNet, {:?} {} blocks, {px} px",
            net.stages,
            match net.block {
                Block::Basic => "basic",
                Block::Bottleneck => "bottleneck",
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::three;

    #[test]
    fn three_numbers_are_three() {
        assert_eq!(three("0.5, 0.25,1"), Ok([0.5, 0.25, 1.0]));
        for wrong in ["", "1,2", "1,2,3,4", "a,b,c"] {
            assert!(three(wrong).is_err(), "{wrong}");
        }
    }
}

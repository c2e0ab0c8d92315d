//! `xla-moco probe`.

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::evaluation::{self, EvalArgs, Subject, by_class, lines, set_lines};
use super::print;
use super::table::aligned;
use crate::eval::probe::{LinearProbe, Mode, ProbeResult, Protocol};
use crate::pjrt::Buffer;
use crate::programs::probe_step::{MOMENTUM, augmentation};

/// Train a linear classifier on frozen features and test it
///
/// SGD with momentum 0.9 on class-token features of the base encoder in
/// evaluation form; random resized crop and flip in training, the centre crop
/// in testing. All learning rates are trained in one pass; the best on
/// pictures held out of the training set is tested.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:
  xla-moco probe --checkpoint runs/quickstart --data pictures/train --test pictures/test \
--lr 0.1,0.3,1,3 --json")]
pub struct Args {
    #[command(flatten)]
    pub common: EvalArgs,

    /// Train on features made once, without augmentation: quick, and not the
    /// published protocol
    #[arg(long)]
    pub fast: bool,

    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,

    /// Pictures a step
    #[arg(long, default_value_t = 1024)]
    pub batch: usize,

    /// Learning rates to choose from, for a batch of 256
    ///
    /// Each is scaled by batch / 256, and follows a cosine to 0 in steps of an
    /// epoch.
    #[arg(
        long,
        value_name = "RATES",
        value_delimiter = ',',
        default_value = "0.03,0.1,0.3,1,3,10"
    )]
    pub lr: Vec<f64>,

    /// Share of the training pictures on which the learning rate is chosen;
    /// with one rate nothing is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub held_out: f64,

    /// Put a batch norm without gain and bias before the classifier
    #[arg(long)]
    pub bn: bool,

    /// Take the final norm's gain as 1 and its bias as 0: what training made of
    /// them scales the features, and so the learning rates
    #[arg(long)]
    pub reset_norm: bool,
}

/// # Errors
/// [`crate::bad_input!`] for a checkpoint, a configuration, data or a protocol
/// that cannot be used; the plugin's errors.
pub fn run(args: Args) -> Result<()> {
    let mut subject = Subject::open(&args.common)?;
    if args.reset_norm {
        subject.reset_norm()?;
    }
    let protocol = Protocol {
        mode: if args.fast {
            Mode::Cached
        } else {
            Mode::Augmented
        },
        epochs: args.epochs,
        batch: args.batch,
        base_rates: args.lr,
        batch_norm: args.bn,
        held_out: args.held_out,
    };
    let (client, cache) = evaluation::client(&args.common.pjrt)?;
    let data = &subject.data;
    let (train, test) = (&data.train, &data.test);
    let config = &subject.config;
    let probe = LinearProbe::new(&client, config, &protocol, train, test, cache.as_ref())?;
    let variables = subject.upload(&client, probe.variables())?;
    let backbone: Vec<(&str, &Buffer)> = variables.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let result = probe.run(&backbone)?;
    let mut report = report(&result, &protocol, &subject)?;
    report["final_norm_reset"] = args.reset_norm.into();
    match args.common.json {
        true => print(&format!("{report}\n")),
        false => print(&text(&result, &protocol, &report)?),
    }
}

/// The result with all that one must know to compare it with another.
fn report(result: &ProbeResult, protocol: &Protocol, subject: &Subject) -> Result<Json> {
    let data = &subject.data;
    let px = subject.config.model.image_size;
    let central = subject.crop();
    let (mode, train_crop) = match protocol.mode {
        Mode::Augmented => {
            let augment = augmentation(&subject.config);
            let crop = format!(
                "random resized, area {}..1, to {px} x {px}; flipped with probability {}",
                augment.crop_min, augment.flip_p
            );
            ("full: augmented in training", crop)
        }
        Mode::Cached => (
            "fast: cached features, no augmentation; not the published protocol",
            central.clone(),
        ),
    };
    let selection = match result.held_out_pictures {
        0 => "one rate, nothing held out".to_owned(),
        held_out => format!("best of the last epoch on {held_out} held-out training pictures"),
    };
    Ok(json!({
        "top1": result.test.top1,
        "mode": mode,
        "fast": protocol.mode == Mode::Cached,
        "epochs": protocol.epochs,
        "batch": protocol.batch,
        "optimizer": format!("SGD, momentum {MOMENTUM}, weight decay 0, cosine by epoch, no warm-up"),
        "lr": result.rates[result.chosen],
        "sweep": result.rates,
        "selection": selection,
        "layer": subject.layer(),
        "batch_norm": protocol.batch_norm,
        "train_crop": train_crop,
        "crop": central,
        "seed": subject.config.seed,
        "set": subject.told(),
        "train": evaluation::set(&data.train_name, &data.train, result.train_pictures)?,
        "held_out_pictures": result.held_out_pictures,
        "test": evaluation::set(&data.test_name, &data.test, result.test_pictures)?,
        "checkpoint": subject.checkpoint(),
        "per_class": result.test.per_class,
        "confusions": result.test.confusions,
    }))
}

/// The report for people.
fn text(result: &ProbeResult, protocol: &Protocol, report: &Json) -> Result<String> {
    let described = [
        ("mode", "/mode"),
        ("epochs", "/epochs"),
        ("batch", "/batch"),
        ("optimizer", "/optimizer"),
        ("lr chosen", "/selection"),
        ("layer", "/layer"),
        ("batch norm", "/batch_norm"),
        ("norm reset", "/final_norm_reset"),
        ("train crop", "/train_crop"),
        ("test crop", "/crop"),
        ("seed", "/seed"),
        ("checkpoint", "/checkpoint/path"),
        ("step", "/checkpoint/step"),
        ("SHA-256", "/checkpoint/sha256"),
    ];
    let head = ["base lr", "peak lr", "held-out", "training", "loss", ""].map(str::to_owned);
    let mut rows = vec![head];
    for (at, rate) in result.rates.iter().enumerate() {
        let percent = |x: f64| format!("{x:.2}%");
        rows.push([
            rate.base.to_string(),
            rate.peak.to_string(),
            rate.held_out_top1.map_or("-".into(), percent),
            percent(rate.train_top1),
            format!("{:.4}", rate.train_loss),
            if at == result.chosen { "chosen" } else { "" }.into(),
        ]);
    }
    let name = match protocol.mode {
        Mode::Augmented => "linear probe",
        Mode::Cached => "linear probe (fast, not the published protocol)",
    };
    Ok(format!(
        "{name} top-1 {:.2}% of {} test pictures (chance {:.2}% with equal classes)\n\n{}{}\n{}{}",
        result.test.top1,
        result.test_pictures,
        100.0 / result.test.per_class.len() as f64,
        lines(report, &described)?,
        set_lines(report, &["train", "test"])?,
        aligned(&rows),
        by_class(&result.test.per_class, &result.test.confusions)?
    ))
}

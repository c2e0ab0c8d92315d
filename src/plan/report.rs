//! What is known of a step on a target, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::buffers::Buffers;
use super::collectives::{Place, Total};
use super::hardware::Hardware;
use crate::config::{OptimizerSharding, RunConfig};
use crate::graph::cost::amount;
use crate::programs::train_step::TrainingSet;

/// Rows of a list of the biggest in the text.
const LISTED: usize = 12;

/// A step on a target. Bytes, FLOPs and seconds are those of one device.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub target: String,
    pub platform: String,
    pub device_kind: String,
    /// All of the target's; `mesh.data`.
    pub devices: usize,
    pub hardware: Hardware,
    /// `train_step`, and what is in it.
    pub program: String,
    pub batch: usize,
    pub lowering: String,
    pub optimizer_sharding: OptimizerSharding,
    /// Chunks that the batch is encoded in.
    pub accumulate: usize,
    /// Whether the compiler took it, or where it refuses nothing, whether its
    /// memory is no more than the device's.
    pub fits: bool,
    /// By the compiler; null where it does not tell.
    pub argument_bytes: Option<u64>,
    pub output_bytes: Option<u64>,
    /// Arguments whose memory results take over.
    pub alias_bytes: Option<u64>,
    pub temp_bytes: Option<u64>,
    pub generated_code_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    /// All that is held at once; of a program that was refused, what it needs,
    /// and of what a device has, as the compiler says, and its words.
    pub used_bytes: Option<u64>,
    pub capacity_bytes: Option<u64>,
    pub refusal: Option<String>,
    /// The compiler's estimate of compute and memory traffic. Null for a
    /// program with a loop, whose body compilers count once.
    pub estimated_seconds: Option<f64>,
    /// As the compiler counts.
    pub flops: Option<f64>,
    pub bytes_accessed: Option<f64>,
    /// Of matrix products, counted from our graph, recomputation included.
    pub matmul_flops: f64,
    /// The same of the program without recomputation.
    pub model_flops: f64,
    /// Our own lower bound.
    pub roofline_seconds: f64,
    /// Our model of the network, apart from the estimates above.
    pub interconnect_seconds: Option<f64>,
    /// As the program runs, combined; null where it was refused.
    pub collectives: Option<BTreeMap<String, Total>>,
    /// Right after partitioning, by what needs them.
    pub collectives_by_scope: Option<Vec<Place>>,
    pub biggest_buffers: Vec<Buffers>,
    /// Where the list of buffers comes from.
    pub buffers_from: &'static str,
    /// The other lowerings that were tried, since not all fit.
    pub alternatives: Vec<Alternative>,
    pub compile_seconds: f64,
    #[serde(flatten)]
    pub pace: Pace,
}

/// What was compiled because something else does not fit.
#[derive(Clone, Debug, Serialize)]
pub struct Alternative {
    /// Each as `--set` takes it.
    pub settings: Vec<String>,
    pub fits: bool,
    pub used_bytes: Option<u64>,
}

impl Alternative {
    pub(super) fn of(report: &Report, asked: &RunConfig) -> Self {
        let mut settings = vec![format!("lowering={}", report.lowering)];
        if report.optimizer_sharding != asked.optimizer_sharding {
            let name = report.optimizer_sharding.name();
            settings.push(format!("optimizer_sharding={name}"));
        }
        if report.accumulate != asked.accumulate {
            settings.push(format!("accumulate={}", report.accumulate));
        }
        Self {
            settings,
            fits: report.fits,
            used_bytes: report.used_bytes,
        }
    }
}

/// What follows from an estimate of a step's seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Pace {
    /// `compiler` or `roofline`: which estimate the others follow from.
    pub pace_from: &'static str,
    pub model_flop_utilisation: f64,
    pub images_per_second: f64,
    pub hours_per_100_epochs: f64,
    pub price_per_100_epochs: Option<f64>,
}

impl Pace {
    /// Of a batch on `devices` devices, at a price for each of them an hour.
    pub(super) fn new(
        estimated: Option<f64>,
        roofline: f64,
        model_flops: f64,
        hardware_flops: f64,
        batch: usize,
        price_per_hour: Option<f64>,
    ) -> Self {
        let (pace_from, seconds) = match estimated {
            Some(seconds) => ("compiler", seconds),
            None => ("roofline", roofline),
        };
        let steps = (TrainingSet::IMAGENET.images / batch).max(1) * 100;
        let hours = steps as f64 * seconds / 3600.0;
        Self {
            pace_from,
            model_flop_utilisation: model_flops / (seconds * hardware_flops),
            images_per_second: batch as f64 / seconds,
            hours_per_100_epochs: hours,
            price_per_100_epochs: price_per_hour.map(|price| price * hours),
        }
    }
}

impl Report {
    /// The JSON object that `--json` prints: the report, and for each number
    /// that is no fact of the compiled program, what it is.
    pub fn to_json(&self) -> Json {
        let mut json = serde_json::to_value(self).expect("a report has only string keys");
        json["estimates"] = json!({
            "estimated_seconds": "the compiler's cost model: compute and memory, without network and input",
            "flops": "the compiler's count, a conditional as its dearest branch",
            "bytes_accessed": "the compiler's count",
            "roofline_seconds": "ours: the larger of matrix products at the data sheet's peak and their operands and results at its bandwidth",
            "interconnect_seconds": "ours: each collective a ring over all links of the chip, nothing hidden behind compute, no latency; add it to a step's seconds for a pessimistic total",
            "model_flop_utilisation": "follows from the seconds of `pace_from`",
            "images_per_second": "follows from the seconds of `pace_from`, without network and input",
            "hours_per_100_epochs": "of ImageNet-1k; follows from the seconds of `pace_from`",
            "price_per_100_epochs": "follows from the hours",
        });
        json
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let sections = [Self::memory, Self::times, Self::exchanged, Self::pace];
        for section in sections {
            section(self, &mut text).expect("strings take all text");
            text.push('\n');
        }
        text.pop();
        text
    }

    /// The collectives for people.
    pub fn collectives_text(&self) -> String {
        let mut text = String::new();
        self.exchanged(&mut text).expect("strings take all text");
        text
    }

    fn memory(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} on {}: {} x {}, {} pictures a step ({} on each{}), {} lowering, compiled in {:.0} s",
            self.program,
            self.target,
            self.devices,
            self.device_kind,
            self.batch,
            self.batch / self.devices,
            match self.accumulate {
                1 => String::new(),
                chunks => format!(", in {chunks} chunks"),
            },
            self.lowering,
            self.compile_seconds
        )?;
        let verdict = if self.fits { "fits" } else { "DOES NOT FIT" };
        let there = amount(self.hardware.memory as f64, "B");
        writeln!(out, "\nmemory of a device: {verdict} ({there} there)")?;
        for (name, value) in [
            ("arguments", self.argument_bytes),
            ("results", self.output_bytes),
            ("  of these in the arguments' place", self.alias_bytes),
            ("temporaries", self.temp_bytes),
            ("program", self.generated_code_bytes),
            ("highest use", self.peak_bytes),
        ] {
            if self.refusal.is_none() {
                let bytes = value.map_or("?".to_owned(), |bytes| amount(bytes as f64, "B"));
                writeln!(out, "  {name:<36} {bytes:>9}")?;
            }
        }
        if let Some(refusal) = &self.refusal {
            writeln!(out, "  the compiler: {refusal}")?;
        }
        for alternative in &self.alternatives {
            let fits = match alternative.fits {
                true => "fits",
                false => "does not fit",
            };
            let used = told(alternative.used_bytes.map(|n| n as f64), "B");
            let settings = alternative.settings.iter();
            let settings: Vec<_> = settings.map(|setting| format!("--set {setting}")).collect();
            writeln!(out, "  {} {fits}: {used}", settings.join(" "))?;
        }
        if !self.fits && !self.alternatives.iter().any(|other| other.fits) {
            writeln!(
                out,
                "  none of these fits: use more devices, or a smaller batch with its learning rate"
            )?;
        }
        if !self.biggest_buffers.is_empty() {
            writeln!(out, "\nbiggest arrays ({})", self.buffers_from)?;
        }
        for buffer in &self.biggest_buffers {
            writeln!(
                out,
                "  {:>9} x {:<4} {:<28} {}",
                amount(buffer.bytes as f64, "B"),
                buffer.count,
                buffer.shape,
                buffer.scope
            )?;
        }
        Ok(())
    }

    fn times(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "time of a step (all of these are estimates)")?;
        match self.estimated_seconds {
            Some(seconds) => writeln!(
                out,
                "  {seconds:.4} s  the compiler's estimate of compute and memory, without network and input"
            )?,
            None => writeln!(
                out,
                "  the compiler gives none (or counts a loop's body once)"
            )?,
        }
        writeln!(
            out,
            "  {:.4} s  our roofline, a lower bound: {} of matrix products, data sheet rates",
            self.roofline_seconds,
            amount(self.matmul_flops, "FLOP")
        )?;
        match self.interconnect_seconds {
            Some(seconds) => writeln!(
                out,
                "  {seconds:.4} s  our model of the network, apart from these: rings over all links, nothing hidden"
            )?,
            None => writeln!(
                out,
                "  no time on the network: the devices share their memory, or the program has a \
                 loop (whose turns the compiler does not tell), or was refused"
            )?,
        }
        writeln!(
            out,
            "  the compiler counts {} and {} accessed",
            told(self.flops, "FLOP"),
            told(self.bytes_accessed, "B")
        )
    }

    fn exchanged(&self, out: &mut String) -> std::fmt::Result {
        let Some(collectives) = &self.collectives else {
            return writeln!(out, "collectives: not known of a program that was refused");
        };
        if collectives.is_empty() {
            return writeln!(out, "no collectives: nothing is exchanged");
        }
        writeln!(out, "collectives as the program runs")?;
        for (kind, total) in collectives {
            let bytes = amount(total.bytes as f64, "B");
            writeln!(out, "  {kind:<20} {:>4}  {bytes}", total.count)?;
        }
        let places = self.collectives_by_scope.as_deref().unwrap_or_default();
        if places.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nwhat needs them, before they are combined")?;
        for place in places.iter().take(LISTED) {
            writeln!(
                out,
                "  {:<20} {:>4}  {:<9} {}",
                place.kind,
                place.total.count,
                amount(place.total.bytes as f64, "B"),
                place.scope
            )?;
        }
        let rest = &places[LISTED.min(places.len())..];
        if !rest.is_empty() {
            let bytes: u64 = rest.iter().map(|place| place.total.bytes).sum();
            let bytes = amount(bytes as f64, "B");
            writeln!(out, "  and {} more places, {bytes}", rest.len())?;
        }
        Ok(())
    }

    fn pace(&self, out: &mut String) -> std::fmt::Result {
        let pace = &self.pace;
        let by = match pace.pace_from {
            "compiler" => "by the compiler's estimate, without network and input",
            _ => "at best, by the roofline",
        };
        writeln!(out, "{by}")?;
        writeln!(
            out,
            "  {:.0} images/s, {:.2} h for 100 epochs of ImageNet, {:.0}% model FLOP utilisation{}",
            pace.images_per_second,
            pace.hours_per_100_epochs,
            100.0 * pace.model_flop_utilisation,
            match pace.price_per_100_epochs {
                Some(price) => format!(", costs {price:.2}"),
                None => String::new(),
            }
        )
    }
}

fn told(value: Option<f64>, unit: &str) -> String {
    value.map_or("not told".to_owned(), |value| amount(value, unit))
}

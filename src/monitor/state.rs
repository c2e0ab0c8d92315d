//! Conditions that hold or do not: collapsed, not finite, at chance.

use serde_json::json;

use super::series::Window;
use super::{Finding, Kind, Reading};

/// So many steps in a row make a collapse.
const COLLAPSED_STEPS: u64 = 50;
/// What spreads (1: over the whole sphere, 0: not at all), and below what it
/// has collapsed.
const SPREADS: [(&str, f64); 2] = [("output_std", 0.05), ("feature_std", 0.01)];
/// Losses of a mean that is compared with chance.
const LOSSES: usize = 100;
/// At chance is what is not below this share of the chance loss,
const CHANCE: f64 = 0.99;
/// so many steps after the warm-up.
const PATIENCE: u64 = 200;

/// Outputs that are all one.
#[derive(Clone, Debug, Default)]
pub struct Collapse {
    /// Steps in a row, for each of [`SPREADS`].
    below: [u64; 2],
    /// While it holds, in words.
    pub reason: Option<String>,
}

impl Collapse {
    pub fn observe(&mut self, reading: &Reading) -> Option<Finding> {
        let mut now = None;
        for (below, (name, least)) in self.below.iter_mut().zip(SPREADS) {
            let value = reading.get(name);
            // NaN is not below: that is a divergence.
            *below = match value {
                Some(value) if value < least => *below + 1,
                _ => 0,
            };
            if let Some(value) = value.filter(|_| *below >= COLLAPSED_STEPS && now.is_none()) {
                now = Some((name, value, reading.step + 1 - *below));
            }
        }
        let Some((name, value, since)) = now else {
            self.reason = None;
            return None;
        };
        let reason =
            format!("{name} is {value:.4} (about 1 if outputs spread), below since step {since}");
        let was = self.reason.replace(reason.clone());
        let message = format!(
            "step {since}: the outputs of all pictures have become one: {reason}. Is a predictor \
             or the balance of codes missing, or the learning rate too high?"
        );
        let evidence = json!({ "metric": name, "value": value, "first_step": since });
        was.is_none()
            .then(|| Finding::new(reading.step, Kind::Collapse, message, evidence))
    }
}

/// Numbers that are none.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    told: bool,
    /// The first step of a loss that is not finite, while it is not.
    pub since: Option<u64>,
}

impl Divergence {
    /// Finds gradients that are not finite in a step whose loss is: the next
    /// loss will not be.
    pub fn observe(&mut self, reading: &Reading) -> Option<Finding> {
        let loss_is_lost = reading.get("loss").is_some_and(|loss| !loss.is_finite());
        self.since = loss_is_lost.then(|| self.since.unwrap_or(reading.step));
        let layers = reading.under("grad_norm/");
        let lost: Vec<&str> = layers
            .filter(|(_, norm)| !norm.is_finite())
            .map(|(layer, _)| layer)
            .collect();
        if lost.is_empty() || loss_is_lost || self.told {
            return None;
        }
        self.told = true;
        let message = format!(
            "step {}: the gradients of {} are not finite, though the loss is. Lower \
             optimizer.base_lr, or set model.compute_dtype=f32 to see whether it is the range of \
             numbers",
            reading.step,
            lost.join(", ")
        );
        let evidence = json!({ "layers": lost });
        Some(Finding::new(
            reading.step,
            Kind::Divergence,
            message,
            evidence,
        ))
    }
}

/// A loss that knows nothing.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The first step that is judged.
    from: u64,
    losses: Window,
    /// While it holds, in words.
    pub reason: Option<String>,
}

impl Stall {
    pub fn new(warmup_steps: u64) -> Self {
        Self {
            from: warmup_steps + PATIENCE,
            losses: Window::new(LOSSES),
            reason: None,
        }
    }

    /// Whether there was time enough to learn.
    pub fn judges(&self, step: u64) -> bool {
        step >= self.from
    }

    pub fn observe(&mut self, reading: &Reading) -> Option<Finding> {
        let (loss, chance) = (reading.get("loss")?, reading.get("chance_loss")?);
        self.losses.push(loss);
        let mean = self.losses.mean()?;
        let stalled = self.judges(reading.step)
            && self.losses.is_full()
            && loss.is_finite()
            && mean >= CHANCE * chance;
        if !stalled {
            self.reason = None;
            return None;
        }
        let reason = format!(
            "the loss is {mean:.3} in the mean of {LOSSES} steps, that of chance is {chance:.3}"
        );
        let was = self.reason.replace(reason.clone());
        let message = format!(
            "step {}: nothing is learned: {reason}. A learning rate of 0 or one far too high, \
             pictures that are all alike, or a frozen encoder do this",
            reading.step
        );
        let evidence = json!({ "loss": mean, "chance_loss": chance });
        was.is_none()
            .then(|| Finding::new(reading.step, Kind::AtChance, message, evidence))
    }
}

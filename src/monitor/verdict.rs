//! The one word that all detectors together come to.

use std::fmt;

use serde_json::{Value, json};

use super::Monitor;

/// How a run is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// Nothing was found, in fewer steps than it takes to learn something.
    TooEarly,
    /// It dips or spikes, and comes back.
    Unstable,
    /// It has become worse, and does not come back.
    Degrading,
    StalledAtChance,
    Collapsed,
    Diverged,
}

impl Verdict {
    /// Whether nothing useful is learned: exit code 3.
    pub fn is_fatal(self) -> bool {
        matches!(
            self,
            Verdict::StalledAtChance | Verdict::Collapsed | Verdict::Diverged
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Healthy => "healthy",
            Verdict::TooEarly => "too early to tell",
            Verdict::Unstable => "unstable",
            Verdict::Degrading => "degrading",
            Verdict::StalledAtChance => "stalled at chance",
            Verdict::Collapsed => "collapsed",
            Verdict::Diverged => "diverged",
        })
    }
}

/// A verdict and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub verdict: Verdict,
    /// In words; none where it is healthy.
    pub reasons: Vec<String>,
    /// The step that this is said of.
    pub step: u64,
}

impl Health {
    pub fn to_json(&self) -> Value {
        json!({
            "verdict": self.verdict.to_string(),
            "reasons": self.reasons,
            "step": self.step,
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        match self.reasons.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.reasons.join("; ")),
        }
    }
}

/// Fewer spikes than this, of which the kNN shows nothing, make no run
/// unstable.
const SPIKES: usize = 3;

impl Monitor {
    /// The verdict after what was observed: the worst that holds, and the
    /// reasons of all that was found.
    pub fn health(&self) -> Health {
        let mut found = Vec::new();
        if let Some(since) = self.divergence.since {
            let reason = format!("the loss is not finite since step {since}");
            found.push((Verdict::Diverged, reason));
        }
        if let Some(reason) = &self.collapse.reason {
            found.push((Verdict::Collapsed, reason.clone()));
        }
        if let Some(reason) = &self.stall.reason {
            found.push((Verdict::StalledAtChance, reason.clone()));
        }
        if let Some(points) = self.dips.degraded {
            let reason = format!("the kNN is {points:.1} points below its best, for long");
            found.push((Verdict::Degrading, reason));
        }
        if self.dips.count > 0 {
            let (dips, restarts) = (self.dips.count, self.dips.restarts);
            let reason = format!("{} in the kNN curve", counted(dips, "dip"));
            let reason = match restarts {
                0 => reason,
                n => format!("{reason}, of these {}", counted(n, "partial restart")),
            };
            found.push((Verdict::Unstable, reason));
        }
        if self.spikes.count >= SPIKES || self.spikes.count > 0 && self.dips.count > 0 {
            let reason = counted(self.spikes.count, "gradient spike");
            found.push((Verdict::Unstable, reason));
        }
        let healthy = match self.stall.judges(self.step) {
            true => Verdict::Healthy,
            false => Verdict::TooEarly,
        };
        Health {
            verdict: found.first().map_or(healthy, |(verdict, _)| *verdict),
            reasons: found.into_iter().map(|(_, reason)| reason).collect(),
            step: self.step,
        }
    }
}

fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

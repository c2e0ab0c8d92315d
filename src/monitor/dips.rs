//! The kNN curve: dips that come back (Figs 1 and 2) and a slow fall that does
//! not (Fig. 3).

use serde_json::json;

use super::series::Window;
use super::{Finding, Kind, Reading};

const KNN: &str = "knn_top1";
/// Readings that the level is the median of, and so many are needed for one.
const LEVEL: usize = 15;
const ENOUGH: usize = 5;
/// A dip is one reading so many points and so many standard deviations below
/// the level,
const DEEP: (f64, f64) = (5.0, 5.0);
/// or two in a row this far below it.
const TWICE: (f64, f64) = (3.0, 3.0);
/// A dip is over with a reading no further below than this.
const BACK: (f64, f64) = (1.0, 1.0);
/// What has not come back after so many readings is no dip.
const LONGEST: usize = 40;
/// A dip of this share of what had been learned is a partial restart.
const RESTART: f64 = 0.3;
/// Readings of a mean that is compared with the best such mean before it.
const MEAN: usize = 20;
/// It has degraded if it is so many points and standard errors below.
const DEGRADED: (f64, f64) = (2.0, 5.0);

/// Watches `knn_top1`.
#[derive(Clone, Debug)]
pub struct Dips {
    batch: usize,
    level: Window,
    recent: Window,
    /// The best mean so far, and the step of it.
    best: Option<(f64, u64)>,
    /// The first level: what is known without training, about.
    floor: Option<f64>,
    /// The step of a reading that may be the first of two low ones.
    suspect: Option<u64>,
    open: Option<Dip>,
    /// Dips told, and of these partial restarts.
    pub count: usize,
    pub restarts: usize,
    /// Points that the curve now is below its best for good.
    pub degraded: Option<f64>,
}

#[derive(Clone, Debug)]
struct Dip {
    first: u64,
    /// The median before it.
    level: f64,
    sigma: f64,
    lowest: f64,
    readings: usize,
}

impl Dips {
    pub fn new(batch: usize) -> Self {
        Self {
            batch,
            level: Window::new(LEVEL),
            recent: Window::new(MEAN),
            best: None,
            floor: None,
            suspect: None,
            open: None,
            count: 0,
            restarts: 0,
            degraded: None,
        }
    }

    pub fn observe(&mut self, reading: &Reading) -> Option<Finding> {
        let value = reading.get(KNN).filter(|value| value.is_finite())?;
        let step = reading.step;
        if let Some(dip) = &mut self.open {
            dip.lowest = dip.lowest.min(value);
            dip.readings += 1;
            let back = value >= dip.level - limit(BACK, dip.sigma);
            if !back && dip.readings < LONGEST {
                return None;
            }
            let dip = self.open.take()?;
            if back {
                self.take(value);
                return Some(self.dipped(&dip, step));
            }
            // The new level is what it is now; the best stays what it was.
            self.level.clear();
            self.recent.clear();
            self.take(value);
            return Some(self.fallen(step, dip.level, dip.level - dip.lowest, dip.first));
        }
        if let Some(dip) = self.begins(step, value) {
            self.open = Some(dip);
            return None;
        }
        self.take(value);
        self.drift(step)
    }

    /// Takes a reading of a curve that is where it should be.
    fn take(&mut self, value: f64) {
        self.level.push(value);
        self.recent.push(value);
        if self.level.len() == ENOUGH && self.floor.is_none() {
            self.floor = self.level.median();
        }
    }

    fn begins(&mut self, step: u64, value: f64) -> Option<Dip> {
        let suspect = self.suspect.take();
        if self.level.len() < ENOUGH {
            return None;
        }
        let (level, sigma) = (self.level.median()?, self.sigma()?);
        let below = level - value;
        let low = below >= limit(TWICE, sigma);
        if !(below >= limit(DEEP, sigma) || low && suspect.is_some()) {
            self.suspect = low.then_some(step);
            return None;
        }
        Some(Dip {
            first: suspect.unwrap_or(step),
            level,
            sigma,
            lowest: value,
            readings: 1,
        })
    }

    /// How far readings scatter: as they do, and never less than a count of
    /// right answers in a batch must.
    fn sigma(&self) -> Option<f64> {
        let share = (self.level.median()? / 100.0).clamp(0.01, 0.99);
        let counted = 100.0 * (share * (1.0 - share) / self.batch.max(1) as f64).sqrt();
        Some(self.level.scatter()?.max(counted))
    }

    fn dipped(&mut self, dip: &Dip, step: u64) -> Finding {
        let depth = dip.level - dip.lowest;
        let learned = dip.level - self.floor.unwrap_or(dip.level);
        let restart = learned > 0.0 && depth >= RESTART * learned;
        self.count += 1;
        self.restarts += usize::from(restart);
        let mut message = format!(
            "step {}: the kNN fell by {depth:.1} points (from {:.1}%) and came back in {} steps. ",
            dip.first,
            dip.level,
            step - dip.first
        );
        if restart {
            message += "The paper calls so deep a dip a partial restart: training left its \
                        optimum and sought another. ";
        }
        message += "Likely instability: the paper freezes the patch projection \
                    (model.patch_projection=frozen) or lowers optimizer.base_lr";
        let evidence = json!({
            "first_step": dip.first,
            "depth": depth,
            "level": dip.level,
            "steps": step - dip.first,
            "partial_restart": restart,
        });
        Finding::new(step, Kind::KnnDip, message, evidence)
    }

    fn drift(&mut self, step: u64) -> Option<Finding> {
        let mean = self.recent.mean().filter(|_| self.recent.is_full())?;
        let (best, best_step) = *self.best.get_or_insert((mean, step));
        if mean >= best {
            self.best = Some((mean, step));
        }
        let error = self.sigma()? * (2.0 / MEAN as f64).sqrt();
        let (below, most) = (best - mean, limit(DEGRADED, error));
        match self.degraded {
            None if below >= most => Some(self.fallen(step, best, below, best_step)),
            Some(_) if below < most / 2.0 => {
                self.degraded = None;
                None
            }
            Some(_) => {
                self.degraded = Some(below);
                None
            }
            None => None,
        }
    }

    fn fallen(&mut self, step: u64, from: f64, points: f64, since: u64) -> Finding {
        self.degraded = Some(points);
        self.best = Some(
            self.best
                .map_or((from, since), |(best, at)| match best > from {
                    true => (best, at),
                    false => (from, since),
                }),
        );
        let message = format!(
            "step {step}: the kNN is {points:.1} points below what it was at step {since} \
             ({from:.1}%), and has not come back. With LAMB the paper saw this at learning rates \
             that are too high (Fig. 3): lower optimizer.base_lr"
        );
        let evidence = json!({ "best": from, "best_step": since, "below": points });
        Finding::new(step, Kind::Degradation, message, evidence)
    }
}

/// The larger of so many points and so many standard deviations.
fn limit((points, sigmas): (f64, f64), sigma: f64) -> f64 {
    points.max(sigmas * sigma)
}

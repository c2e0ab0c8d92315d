//! Gradient spikes (Fig. 4): a layer's gradient norm over its running median.

use serde_json::json;

use super::series::Window;
use super::{Finding, Kind, Reading};

/// What the names of the layers' gradient norms begin with.
const GRADIENT: &str = "grad_norm/";
/// Steps that the median is over, and so many are needed for one.
const WINDOW: usize = 100;
const ENOUGH: usize = 50;
/// A spike is so many times the median; the norm of a healthy layer moves by a
/// factor of two or three.
const TIMES: f64 = 8.0;
/// And so many times as far from it as is usual, in logarithms.
const SIGMAS: f64 = 6.0;
/// A spike is over when no layer has one for so many steps. In the paper the
/// last layers follow the first by "tens of iterations".
const QUIET: u64 = 40;
/// A spike is told after so many steps even if it lasts.
const LONGEST: u64 = 200;

/// Watches all layers.
#[derive(Clone, Debug, Default)]
pub struct Spikes {
    layers: Vec<Layer>,
    /// A spike that is not over.
    open: Option<Spike>,
    /// Spikes told.
    pub count: usize,
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    /// Logarithms of the norm.
    usual: Window,
}

#[derive(Clone, Debug)]
struct Spike {
    /// Of each layer that has risen, in the order of rising.
    rises: Vec<Rise>,
    /// When a layer last was above.
    last: u64,
}

#[derive(Clone, Debug)]
struct Rise {
    layer: String,
    /// The first step above.
    step: u64,
    /// The highest value over the median.
    ratio: f64,
}

impl Layer {
    /// How many times its median a norm is, if that is a spike.
    fn spike(&mut self, norm: f64) -> Option<f64> {
        let log = norm.ln();
        let enough = self.usual.len() >= ENOUGH;
        let found = self.usual.median().zip(self.usual.scatter());
        // A layer that is held has norm 0: no logarithm.
        self.usual.push(log);
        let (median, scatter) = found.filter(|_| enough && log.is_finite())?;
        let above = log - median;
        (above >= TIMES.ln() && above >= SIGMAS * scatter).then(|| above.exp())
    }
}

impl Spikes {
    pub fn observe(&mut self, reading: &Reading) -> Option<Finding> {
        let step = reading.step;
        for (name, norm) in reading.under(GRADIENT) {
            let at = self.layers.iter().position(|layer| layer.name == name);
            let at = at.unwrap_or_else(|| {
                self.layers.push(Layer {
                    name: name.to_owned(),
                    usual: Window::new(WINDOW),
                });
                self.layers.len() - 1
            });
            if let Some(ratio) = self.layers[at].spike(norm) {
                let spike = self.open.get_or_insert_with(|| Spike {
                    rises: Vec::new(),
                    last: step,
                });
                spike.add(name, step, ratio);
            }
        }
        let over =
            |spike: &mut Spike| step >= spike.last + QUIET || step >= spike.rises[0].step + LONGEST;
        let spike = self.open.take_if(over)?;
        self.count += 1;
        Some(spike.told(step, self.last_block()))
    }

    /// The block of the highest number.
    fn last_block(&self) -> Option<&str> {
        let number = |layer: &&Layer| layer.name.strip_prefix("blocks.")?.parse::<u32>().ok();
        let blocks = self.layers.iter().filter(|layer| number(layer).is_some());
        blocks.max_by_key(number).map(|layer| layer.name.as_str())
    }
}

impl Spike {
    fn add(&mut self, layer: &str, step: u64, ratio: f64) {
        self.last = step;
        match self.rises.iter_mut().find(|rise| rise.layer == layer) {
            Some(rise) => rise.ratio = rise.ratio.max(ratio),
            None => self.rises.push(Rise {
                layer: layer.to_owned(),
                step,
                ratio,
            }),
        }
    }

    fn told(&self, step: u64, last_block: Option<&str>) -> Finding {
        let first = &self.rises[0];
        let (layer, at, ratio) = (&first.layer, first.step, first.ratio);
        let last = self
            .rises
            .iter()
            .find(|rise| Some(rise.layer.as_str()) == last_block && rise.layer != first.layer);
        let lead = last.map(|last| last.step - at);
        let mut message =
            format!("step {at}: the gradient of {layer} rose {ratio:.0}x over its median");
        if let (Some(last), Some(lead)) = (last, lead) {
            message += &match lead {
                0 => format!(", in the same step as {}", last.layer),
                1 => format!(", 1 step before {}", last.layer),
                lead => format!(", {lead} steps before {}", last.layer),
            };
        }
        message += match layer.as_str() {
            "patch_embed" => {
                ". Likely instability that begins in the first layer, as in the paper's Fig. 4: \
                 try model.patch_projection=frozen, or a lower optimizer.base_lr"
            }
            _ => {
                ". Likely instability: try a lower optimizer.base_lr, a longer warm-up or \
                 optimizer.clip_norm"
            }
        };
        let layers = self.rises.iter().map(
            |rise| json!({ "layer": rise.layer, "step": rise.step, "times_median": rise.ratio }),
        );
        let evidence = json!({
            "first_step": at,
            "first_layer": layer,
            "times_median": ratio,
            "lead_steps": lead,
            "layers": layers.collect::<Vec<_>>(),
        });
        Finding::new(step, Kind::GradientSpike, message, evidence)
    }
}

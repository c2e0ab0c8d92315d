//! Optimizers: how gradients change parameters. Each rule has a file that
//! states its equations; what all share is here: groups by name, clipping,
//! parameters that are held.
//!
//! A rule keeps tensors of its own beside each parameter, its slots: of the
//! parameter's shape, zero at the start.

mod adamw;
mod lamb;
mod lars;
mod moments;
mod sgd;

use adamw::AdamW;
use lamb::Lamb;
use lars::Lars;
use moments::Moments;
pub use sgd::Sgd;

use crate::config::{Optimizer, Rule};
use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, GraphError, Result, Value};

/// A parameter in one step.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub value: Value,
    pub gradient: Value,
    /// As [`slots`] names them.
    pub slots: Vec<Value>,
    /// Factor of the learning rate, beside its group's.
    pub lr_scale: f64,
    /// Where this holds (pred []), parameter and slots stay as they are.
    pub held: Option<Value>,
}

/// What a step gives.
#[derive(Clone, Debug)]
pub struct Update {
    /// The new value and the new slots of each parameter.
    pub parameters: Vec<(Value, Vec<Value>)>,
    /// Norm of all gradients together before clipping, f32 [].
    pub gradient_norm: Value,
}

/// The names of a rule's slots, as PyTorch's state dictionaries have them.
pub fn slots(config: &Optimizer) -> &'static [&'static str] {
    match config.rule {
        Rule::AdamW { .. } | Rule::Lamb { .. } => Moments::SLOTS,
        Rule::Lars { .. } => Lars::SLOTS,
        Rule::Sgd { .. } => Sgd::SLOTS,
    }
}

/// One step of all parameters. `lr` is f32, `step` i32 and counts from 0.
///
/// Gradients are clipped first in their group, then all together.
///
/// # Errors
/// If a group's pattern matches no parameter.
pub fn update(
    b: &Builder,
    config: &Optimizer,
    parameters: &[Parameter],
    lr: Value,
    step: Value,
) -> Result<Update> {
    let groups = assign(config, parameters)?;
    let (gradients, gradient_norm) = clip(b, config, parameters, &groups)?;
    let moments = match config.rule {
        Rule::AdamW { beta1, beta2, eps } | Rule::Lamb { beta1, beta2, eps } => {
            Some(Moments::new(b, [beta1, beta2], eps, step)?)
        }
        Rule::Lars { .. } | Rule::Sgd { .. } => None,
    };
    let new_step = |group: Option<usize>, lr_scale: f64| {
        let group = group.map(|group| &config.groups[group]);
        let pace = Pace {
            lr: match lr_scale * group.map_or(1.0, |group| group.lr_scale) {
                1.0 => lr,
                scale => b.scale(lr, scale)?,
            },
            weight_decay: group
                .and_then(|group| group.weight_decay)
                .unwrap_or(config.weight_decay),
        };
        Step::new(b, config.rule, moments, pace)
    };

    // Parameters of one group and one scale share what they can.
    let mut steps: Vec<((Option<usize>, f64), Step)> = Vec::new();
    for (parameter, group) in parameters.iter().zip(&groups) {
        let key = (*group, parameter.lr_scale);
        if steps.iter().all(|(known, _)| *known != key) {
            steps.push((key, new_step(*group, parameter.lr_scale)?));
        }
    }
    let mut updated = Vec::new();
    for ((parameter, gradient), group) in parameters.iter().zip(gradients).zip(groups) {
        let _scope = b.scope(parameter.name.as_str());
        let key = (group, parameter.lr_scale);
        let (_, step) = steps
            .iter()
            .find(|(known, _)| *known == key)
            .expect("a step for each key");
        let (value, slots) = step.update(b, parameter, gradient)?;
        let hold = |old: Value, new: Value| match parameter.held {
            Some(held) => b.select(held, old, new),
            None => Ok(new),
        };
        let slots = parameter.slots.iter().zip(slots);
        let slots = slots.map(|(old, new)| hold(*old, new));
        updated.push((hold(parameter.value, value)?, slots.collect::<Result<_>>()?));
    }
    Ok(Update {
        parameters: updated,
        gradient_norm,
    })
}

/// Learning rate and decay of a parameter in one step.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A scalar, or of the parameter's shape.
    pub lr: Value,
    pub weight_decay: f64,
}

/// A rule with what its parameters share in one step.
enum Step {
    AdamW(AdamW),
    Lamb(Lamb),
    Lars(Lars),
    Sgd(Sgd),
}

impl Step {
    fn new(b: &Builder, rule: Rule, moments: Option<Moments>, pace: Pace) -> Result<Self> {
        Ok(match (rule, moments) {
            (
                Rule::Lars {
                    momentum,
                    trust_coefficient,
                },
                _,
            ) => Self::Lars(Lars {
                momentum,
                trust_coefficient,
                pace,
            }),
            (Rule::Sgd { momentum }, _) => Self::Sgd(Sgd { momentum, pace }),
            (Rule::Lamb { .. }, Some(moments)) => Self::Lamb(Lamb::new(moments, pace)),
            (Rule::AdamW { .. }, Some(moments)) => Self::AdamW(AdamW::new(b, moments, pace)?),
            (rule, None) => {
                return Err(GraphError::Invalid(format!("{rule:?} needs moments")));
            }
        })
    }

    fn update(&self, b: &Builder, of: &Parameter, g: Value) -> Result<(Value, Vec<Value>)> {
        let p = of.value;
        match (self, of.slots.as_slice()) {
            (Self::AdamW(rule), &[m, v]) => {
                let (p, slots) = rule.update(b, p, g, [m, v])?;
                Ok((p, slots.to_vec()))
            }
            (Self::Lamb(rule), &[m, v]) => {
                let (p, slots) = rule.update(b, p, g, [m, v])?;
                Ok((p, slots.to_vec()))
            }
            (Self::Lars(rule), &[mu]) => {
                let (p, mu) = rule.update(b, p, g, mu)?;
                Ok((p, vec![mu]))
            }
            (Self::Sgd(rule), &[buf]) => {
                let (p, buf) = rule.update(b, p, g, buf)?;
                Ok((p, vec![buf]))
            }
            (_, slots) => Err(GraphError::Invalid(format!(
                "{} has {} slots, which are not this rule's",
                of.name,
                slots.len()
            ))),
        }
    }
}

/// The group of each parameter: the first whose pattern its name matches.
fn assign(config: &Optimizer, parameters: &[Parameter]) -> Result<Vec<Option<usize>>> {
    for (index, group) in config.groups.iter().enumerate() {
        if !parameters.iter().any(|p| group.holds(&p.name)) {
            return Err(GraphError::Invalid(format!(
                "`optimizer.groups[{index}].pattern` \"{}\" matches none of the {} trained \
                 parameters, such as {}",
                group.pattern,
                parameters.len(),
                parameters.first().map_or("none", |p| p.name.as_str()),
            )));
        }
    }
    let group = |p: &Parameter| config.groups.iter().position(|group| group.holds(&p.name));
    Ok(parameters.iter().map(group).collect())
}

/// The gradients, clipped as the configuration asks, and their norm before.
fn clip(
    b: &Builder,
    config: &Optimizer,
    parameters: &[Parameter],
    groups: &[Option<usize>],
) -> Result<(Vec<Value>, Value)> {
    let _scope = b.scope("gradient_norm");
    let mut gradients: Vec<Value> = parameters.iter().map(|p| p.gradient).collect();
    let mut squares = gradients
        .iter()
        .map(|g| b.sum_all(b.mul(*g, *g)?))
        .collect::<Result<Vec<_>>>()?;
    let total = |squares: &[Value]| -> Result<Value> {
        match squares {
            [] => b.scalar(DType::F32, 0.0),
            squares => b.sqrt(b.sum_all(b.stack(squares)?)?),
        }
    };
    let before = total(&squares)?;
    for (index, group) in config.groups.iter().enumerate() {
        let Some(most) = group.clip_norm else {
            continue;
        };
        let members: Vec<usize> = (0..gradients.len())
            .filter(|i| groups[*i] == Some(index))
            .collect();
        let own: Vec<Value> = members.iter().map(|i| squares[*i]).collect();
        let factor = clip_factor(b, total(&own)?, most)?;
        for i in members {
            gradients[i] = b.mul(gradients[i], factor)?;
            squares[i] = b.mul(squares[i], b.mul(factor, factor)?)?;
        }
    }
    if let Some(most) = config.clip_norm {
        let factor = clip_factor(b, total(&squares)?, most)?;
        for gradient in &mut gradients {
            *gradient = b.mul(*gradient, factor)?;
        }
    }
    Ok((gradients, before))
}

/// min(1, most / (norm + 1e-6)): PyTorch's rule.
fn clip_factor(b: &Builder, norm: Value, most: f64) -> Result<Value> {
    let factor = b.div(b.full_like(norm, most)?, b.shift(norm, 1e-6)?)?;
    b.min(factor, b.full_like(factor, 1.0)?)
}

/// Whether a layer-wise rule scales and decays this parameter: matrices and
/// whatever has more axes than one.
fn adapts(p: Value) -> bool {
    p.rank() > 1
}

/// coefficient |p| / |r|, and 1 where either norm is 0.
fn trust_ratio(b: &Builder, p: Value, r: Value, coefficient: f64) -> Result<Value> {
    let norm = |x: Value| b.sqrt(b.sum_all(b.mul(x, x)?)?);
    let (p, r) = (norm(p)?, norm(r)?);
    let zero = b.full_like(p, 0.0)?;
    let one = b.full_like(p, 1.0)?;
    let positive = b.and(
        b.compare(Comparison::Gt, p, zero)?,
        b.compare(Comparison::Gt, r, zero)?,
    )?;
    let ratio = b.scale(b.div(p, b.select(positive, r, one)?)?, coefficient)?;
    b.select(positive, ratio, one)
}

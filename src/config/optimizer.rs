//! The `optimizer` section: the rule, its numbers, and exceptions by name.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunConfig;
use super::checks::{positive, within, word};
use crate::bad_input;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    #[default]
    AdamW,
    Lamb,
    Lars,
    Sgd,
}

/// How a gradient changes a parameter; see [`crate::optim`] for the equations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Rule {
    AdamW {
        beta1: f64,
        beta2: f64,
        eps: f64,
    },
    Lamb {
        beta1: f64,
        beta2: f64,
        eps: f64,
    },
    Lars {
        momentum: f64,
        trust_coefficient: f64,
    },
    Sgd {
        momentum: f64,
    },
}

impl Optimizer {
    pub fn name(&self) -> OptimizerName {
        match self.rule {
            Rule::AdamW { .. } => OptimizerName::AdamW,
            Rule::Lamb { .. } => OptimizerName::Lamb,
            Rule::Lars { .. } => OptimizerName::Lars,
            Rule::Sgd { .. } => OptimizerName::Sgd,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    #[serde(flatten)]
    pub rule: Rule,
    /// At a batch of 256; see [`super::RunConfig::peak_lr`].
    pub base_lr: f64,
    /// See the rule for how it acts, and on what.
    pub weight_decay: f64,
    /// Gradients are scaled down together where their norm is above this.
    pub clip_norm: Option<f64>,
    /// Factor of the learning rate from each layer to the one before it, 1
    /// at the head; the embedding is layer 0 (Bao et al. 2022). None: 1.
    pub layer_decay: Option<f64>,
    /// A parameter follows the first group whose pattern its name matches.
    pub groups: Vec<Group>,
}

/// Parameters that are treated otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// A parameter's name, where `*` stands for any letters, such as
    /// "base_encoder.patch_embed.*".
    pub pattern: String,
    /// Factor of the learning rate.
    #[serde(default = "one")]
    pub lr_scale: f64,
    /// In place of the optimizer's.
    pub weight_decay: Option<f64>,
    /// The group's gradients are scaled down together where their norm is
    /// above this.
    pub clip_norm: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl Group {
    /// Whether the group holds the parameter of this name.
    pub fn holds(&self, name: &str) -> bool {
        let (first, rest) = match self.pattern.split_once('*') {
            None => return self.pattern == name,
            Some(parts) => parts,
        };
        let Some(mut name) = name.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        // The earliest place of each part leaves the most for the others.
        for part in parts {
            match name.find(part) {
                Some(at) => name = &name[at + part.len()..],
                None => return false,
            }
        }
        name.ends_with(last)
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOptimizer {
    #[serde(default)]
    name: OptimizerName,
    /// Peak learning rate at a batch of 256; scaled by batch / 256.
    base_lr: f64,
    /// Of adamw and lamb decoupled.
    weight_decay: f64,
    /// Of adamw and lamb; 0.9 if absent.
    beta1: Option<f64>,
    /// Of adamw and lamb; 0.999 if absent.
    beta2: Option<f64>,
    /// If absent: 1e-8 of adamw, 1e-6 of lamb.
    eps: Option<f64>,
    /// Of lars and sgd; 0.9 if absent.
    momentum: Option<f64>,
    /// Of lars; 0.001 if absent.
    trust_coefficient: Option<f64>,
    /// Largest norm of all gradients together; absent: no clipping.
    clip_norm: Option<f64>,
    /// Factor of the learning rate from each layer of a ViT to the one before
    /// it, 1 at the head; absent: 1.
    layer_decay: Option<f64>,
    /// Exceptions; a parameter follows the first that its name matches.
    #[serde(default)]
    groups: Vec<Group>,
}

impl WrittenOptimizer {
    /// # Errors
    /// If a key was written that the rule does not know.
    pub(super) fn resolve(self) -> Result<Optimizer> {
        use OptimizerName::{AdamW, Lamb, Lars, Sgd};
        let name = self.name;
        let adaptive = matches!(name, AdamW | Lamb);
        for (key, written, known) in [
            ("beta1", self.beta1, adaptive),
            ("beta2", self.beta2, adaptive),
            ("eps", self.eps, adaptive),
            ("momentum", self.momentum, !adaptive),
            ("trust_coefficient", self.trust_coefficient, name == Lars),
        ] {
            if let (Some(value), false) = (written, known) {
                return Err(bad_input!(
                    "`optimizer.{key}` is {value}, but `optimizer.name` \"{}\" has no such \
                     number; leave it out, or set it to null",
                    word(&name)
                ));
            }
        }
        let (beta1, beta2) = (self.beta1.unwrap_or(0.9), self.beta2.unwrap_or(0.999));
        let momentum = self.momentum.unwrap_or(0.9);
        let rule = match name {
            AdamW => Rule::AdamW {
                beta1,
                beta2,
                eps: self.eps.unwrap_or(1e-8),
            },
            Lamb => Rule::Lamb {
                beta1,
                beta2,
                eps: self.eps.unwrap_or(1e-6),
            },
            Lars => Rule::Lars {
                momentum,
                trust_coefficient: self.trust_coefficient.unwrap_or(0.001),
            },
            Sgd => Rule::Sgd { momentum },
        };
        Ok(Optimizer {
            rule,
            base_lr: self.base_lr,
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            layer_decay: self.layer_decay,
            groups: self.groups,
        })
    }
}

impl RunConfig {
    pub(super) fn check_optimizer(&self) -> Result<()> {
        let o = &self.optimizer;
        positive("optimizer.base_lr", o.base_lr)?;
        within("optimizer.weight_decay", o.weight_decay, 0.0..=1e6)?;
        match o.rule {
            Rule::AdamW { beta1, beta2, eps } | Rule::Lamb { beta1, beta2, eps } => {
                below_one("optimizer.beta1", beta1)?;
                below_one("optimizer.beta2", beta2)?;
                positive("optimizer.eps", eps)?;
            }
            Rule::Lars {
                momentum,
                trust_coefficient,
            } => {
                below_one("optimizer.momentum", momentum)?;
                positive("optimizer.trust_coefficient", trust_coefficient)?;
            }
            Rule::Sgd { momentum } => below_one("optimizer.momentum", momentum)?,
        }
        if let Some(norm) = o.clip_norm {
            positive("optimizer.clip_norm", norm)?;
        }
        if let Some(decay) = o.layer_decay {
            positive("optimizer.layer_decay", decay)?;
            within("optimizer.layer_decay", decay, 0.0..=1.0)?;
            if self.model.vit().is_none() {
                return Err(bad_input!(
                    "`optimizer.layer_decay` is {decay}, and `model.arch` is a ResNet; it is for \
                     the blocks of a ViT: leave it out"
                ));
            }
        }
        for (index, group) in o.groups.iter().enumerate() {
            let key = |name: &str| format!("optimizer.groups[{index}].{name}");
            if group.pattern.is_empty() {
                return Err(bad_input!(
                    "`{}` is empty; expected a parameter's name, `*` standing for any letters",
                    key("pattern")
                ));
            }
            within(&key("lr_scale"), group.lr_scale, 0.0..=1e6)?;
            if let Some(decay) = group.weight_decay {
                within(&key("weight_decay"), decay, 0.0..=1e6)?;
            }
            if let Some(norm) = group.clip_norm {
                positive(&key("clip_norm"), norm)?;
            }
        }
        Ok(())
    }
}

fn below_one(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(bad_input!(
        "`{key}` is {value}; expected 0 or more and less than 1"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        let name = "base_encoder.blocks.3.attn.qkv.bias";
        for (pattern, expected) in [
            ("*", true),
            (name, true),
            ("base_encoder.*", true),
            ("*.bias", true),
            ("base_encoder.*.bias", true),
            ("*.attn.*", true),
            ("*qkv*bias*", true),
            ("base_encoder.blocks.3.attn.qkv.bias*", true),
            ("base_encoder", false),
            ("*.weight", false),
            ("encoder.*", false),
            ("*.attn", false),
            ("*bias*qkv*", false),
            ("base_encoder.blocks.3.attn.qkv.bias*bias", false),
        ] {
            let group = Group {
                pattern: pattern.into(),
                lr_scale: 1.0,
                weight_decay: None,
                clip_norm: None,
            };
            assert_eq!(group.holds(name), expected, "{pattern}");
        }
    }
}

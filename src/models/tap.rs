//! Places of a ViT from which features are read, other than its output.

use std::fmt;

use crate::bad_input;
use crate::config::{Model, Output};

/// Which features of a picture: those after so many blocks, through the final
/// norm (as DINO reads them) where the model has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// From 1 to the model's blocks.
    pub blocks: usize,
    pub pool: Pool,
}

/// One row of numbers from a picture's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The class token.
    Class,
    /// The mean of the patch tokens.
    Mean,
}

impl Tap {
    /// # Errors
    /// [`bad_input!`] for a backbone that has no such place.
    pub fn check(self, model: &Model) -> anyhow::Result<()> {
        let Some(vit) = model.vit() else {
            return Err(bad_input!(
                "features of single layers are a ViT's; this model's are its {}",
                model.features_are()
            ));
        };
        if !(1..=vit.blocks).contains(&self.blocks) {
            return Err(bad_input!(
                "there is no layer {}: the model has blocks 1 to {}",
                self.blocks,
                vit.blocks
            ));
        }
        if self.pool == Pool::Class && vit.output != Output::Class {
            return Err(bad_input!(
                "this model has no class token: its features are the {}; take the pool \"mean\"",
                model.features_are()
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let pool = match self.pool {
            Pool::Class => "class token",
            Pool::Mean => "mean of the patch tokens",
        };
        write!(f, "{pool} after block {}", self.blocks)
    }
}

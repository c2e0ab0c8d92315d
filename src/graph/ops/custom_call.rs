//! What a plugin knows under a name of its own.

use super::{Emission, Operation, Vjp};
use crate::graph::emit::quoted;
use crate::graph::{Builder, Result, Shape, Value};

/// Calls a function of the plugin, which is trusted to have no effect but
/// its results.
#[derive(Clone, Debug)]
pub struct CustomCall {
    pub target: String,
    pub results: Vec<Shape>,
    /// Further attributes, as MLIR writes them: `("api_version", "2 : i32")`.
    pub attributes: Vec<(&'static str, String)>,
}

impl Operation for CustomCall {
    fn name(&self) -> &'static str {
        "custom_call"
    }

    fn infer(&self, _: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        if self.target.is_empty() || self.results.is_empty() {
            return Err("a call needs a target and a result".into());
        }
        Ok(self.results.clone())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(self.name(), "what the plugin computes is not known"))
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        let mut attributes = vec![("call_target_name", quoted(&self.target))];
        attributes.extend(self.attributes.iter().cloned());
        Emission::op("stablehlo.custom_call", attributes)
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// Calls the plugin's function `target`, which gives `results`.
    pub fn custom_call(
        &self,
        target: impl Into<String>,
        operands: &[Value],
        results: &[Shape],
        attributes: Vec<(&'static str, String)>,
    ) -> Result<Vec<Value>> {
        let op = CustomCall {
            target: target.into(),
            results: results.to_vec(),
            attributes,
        };
        self.push(op, operands)
    }
}

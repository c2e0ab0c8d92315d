//! The whole graph is checked before it is emitted.

use super::error::list;
use super::ops::Operation;
use super::{Def, Graph, GraphError, Result, Shape};

impl Graph {
    /// Checks that every operand is defined before its use, that every
    /// node's results are what its shape rule says, and that shardings fit
    /// ranks. Regions are checked as well.
    pub fn verify(&self) -> Result<()> {
        let mut defined = vec![false; self.defs.len()];
        for input in &self.inputs {
            defined[input.value.index()] = true;
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let place = || {
                format!(
                    "node {number} ({}) in scope '{}'",
                    node.op.name(),
                    self.scope(node)
                )
            };
            if let Some(v) = node
                .operands
                .iter()
                .find(|v| !defined.get(v.index()).is_some_and(|d| *d))
            {
                return Err(GraphError::Invalid(format!(
                    "{} uses value {} ({}) before its definition",
                    place(),
                    v.index(),
                    v.shape
                )));
            }
            let operands: Vec<Shape> = node.operands.iter().map(|v| v.shape).collect();
            let found: Vec<Shape> = node.results.iter().map(|v| v.shape).collect();
            let expected = node
                .op
                .infer(&operands)
                .map_err(|reason| GraphError::Invalid(format!("{}: {reason}", place())))?;
            if expected != found {
                return Err(GraphError::Invalid(format!(
                    "{} gives ({}), its shape rule says ({})",
                    place(),
                    list(&found),
                    list(&expected)
                )));
            }
            for region in node.op.regions() {
                region.verify()?;
            }
            for (k, value) in node.results.iter().enumerate() {
                if self.defs[value.index()] != Def::Node(number, k) {
                    return Err(GraphError::Invalid(format!(
                        "{} does not own its result",
                        place()
                    )));
                }
                defined[value.index()] = true;
            }
        }
        let shardings = self
            .inputs
            .iter()
            .map(|i| (&i.name, i.value, &i.sharding))
            .chain(self.outputs.iter().map(|o| (&o.name, o.value, &o.sharding)));
        for (name, value, sharding) in shardings {
            if !defined.get(value.index()).is_some_and(|d| *d) {
                return Err(GraphError::Invalid(format!(
                    "output '{name}' is not defined"
                )));
            }
            if let Some(s) = sharding
                && s.0.len() != value.rank()
            {
                return Err(GraphError::Invalid(format!(
                    "'{name}' has rank {}, its sharding {} axes",
                    value.rank(),
                    s.0.len()
                )));
            }
        }
        Ok(())
    }
}

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

#[cfg(test)]
mod tests {
    use super::super::{Builder, DType, Sharding, Value};
    use super::*;

    /// A sound graph of two ops in a scope, `tanh` and `negate`.
    fn sound() -> Graph {
        let b = Builder::new();
        let x = b.input("x", Shape::new(DType::F32, &[2, 3]));
        let scope = b.scope("head");
        b.output("y", b.neg(b.tanh(x).unwrap()).unwrap());
        drop(scope);
        b.finish().unwrap()
    }

    /// What the verifier says after `spoil`.
    fn complaint(spoil: impl FnOnce(&mut Graph)) -> String {
        let mut graph = sound();
        graph.verify().unwrap();
        spoil(&mut graph);
        graph.verify().unwrap_err().to_string()
    }

    fn check(spoil: impl FnOnce(&mut Graph), expected: &str) {
        let found = complaint(spoil);
        assert_eq!(found, format!("the graph is not valid: {expected}"));
    }

    #[test]
    fn use_before_definition() {
        check(
            |g| g.nodes.swap(0, 1),
            "node 0 (negate) in scope 'head' uses value 1 (2x3xf32) before its definition",
        );
    }

    #[test]
    fn results_of_another_shape_than_the_rule_gives() {
        check(
            |g| g.nodes[0].results[0].shape = Shape::new(DType::F32, &[3, 2]),
            "node 0 (tanh) in scope 'head' gives (3x2xf32), its shape rule says (2x3xf32)",
        );
    }

    #[test]
    fn operands_that_the_rule_refuses() {
        check(
            |g| g.nodes[0].operands.clear(),
            "node 0 (tanh) in scope 'head': expected 1 operands, found 0",
        );
    }

    #[test]
    fn results_that_another_node_owns() {
        check(
            |g| g.nodes[1].results[0] = g.nodes[0].results[0],
            "node 1 (negate) in scope 'head' does not own its result",
        );
    }

    #[test]
    fn outputs_that_nothing_defines() {
        let nowhere = Value {
            id: 99,
            shape: Shape::scalar(DType::F32),
        };
        check(
            |g| g.outputs[0].value = nowhere,
            "output 'y' is not defined",
        );
    }

    #[test]
    fn shardings_of_another_rank() {
        check(
            |g| g.inputs[0].sharding = Some(Sharding::split(3, 0)),
            "'x' has rank 2, its sharding 3 axes",
        );
        check(
            |g| g.outputs[0].sharding = Some(Sharding::replicated(1)),
            "'y' has rank 2, its sharding 1 axes",
        );
    }

    #[test]
    fn functions_inside_of_ops() {
        let mut inner = sound();
        inner.nodes.swap(0, 1);
        let b = Builder::new();
        let x = b.input("x", Shape::new(DType::F32, &[2, 3]));
        let y = b.remat(inner, &[x]).unwrap();
        b.output("y", y[0]);
        let found = b.finish().unwrap_err().to_string();
        assert!(found.contains("node 0 (negate) in scope 'head'"), "{found}");
    }
}

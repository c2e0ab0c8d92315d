//! Removing what no output depends on.

use super::{Def, Graph, Node, Value};

impl Graph {
    /// Drops the nodes that no output depends on (reverse mode leaves some,
    /// and so do unused results of helpers). Inputs stay: they are the
    /// signature. Order and scopes stay as they are.
    pub fn prune(&mut self) {
        let mut live = vec![false; self.defs.len()];
        for output in &self.outputs {
            live[output.value.index()] = true;
        }
        let mut keep = vec![false; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate().rev() {
            if node.results.iter().any(|r| live[r.index()]) {
                keep[number] = true;
                for v in &node.operands {
                    live[v.index()] = true;
                }
            }
        }
        if keep.iter().all(|k| *k) {
            return;
        }
        let mut pruned = Graph::default();
        let mut moved: Vec<Option<Value>> = vec![None; self.defs.len()];
        let follow = |moved: &[Option<Value>], v: &mut Value| {
            *v = moved[v.index()].expect("operands of what is kept are kept");
        };
        for (number, mut input) in std::mem::take(&mut self.inputs).into_iter().enumerate() {
            let old = input.value;
            input.value = pruned.new_value(old.shape, Def::Input(number));
            moved[old.index()] = Some(input.value);
            pruned.inputs.push(input);
        }
        let nodes = std::mem::take(&mut self.nodes);
        for (mut node, _) in nodes.into_iter().zip(keep).filter(|(_, keep)| *keep) {
            for v in &mut node.operands {
                follow(&moved, v);
            }
            let number = pruned.nodes.len();
            for (k, result) in node.results.iter_mut().enumerate() {
                let new = pruned.new_value(result.shape, Def::Node(number, k));
                moved[result.index()] = Some(new);
                *result = new;
            }
            let scope = pruned.scope_number(&self.scopes[node.scope as usize]);
            pruned.nodes.push(Node { scope, ..node });
        }
        for mut output in std::mem::take(&mut self.outputs) {
            follow(&moved, &mut output.value);
            pruned.outputs.push(output);
        }
        *self = pruned;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, DType, Shape};
    use super::*;
    use crate::graph::ops::Operation;

    fn pruned() -> Graph {
        let b = Builder::new();
        let shape = Shape::new(DType::F32, &[2]);
        let (x, unused) = (b.input("x", shape), b.input("unused", shape));
        let dead = b.exp(unused).unwrap();
        let y = {
            let _scope = b.scope("kept");
            b.tanh(x).unwrap()
        };
        b.add(dead, y).unwrap();
        b.output("y", b.neg(y).unwrap());
        b.finish().unwrap()
    }

    #[test]
    fn what_no_output_needs_goes_and_inputs_stay() {
        let graph = pruned();
        let names: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["tanh", "negate"]);
        assert_eq!(graph.inputs.len(), 2);
        assert_eq!(graph.scope(&graph.nodes()[0]), "kept");
        assert_eq!(graph.scope(&graph.nodes()[1]), "");
        graph.verify().unwrap();
    }

    #[test]
    fn pruning_again_changes_nothing() {
        let graph = pruned();
        let mut again = graph.clone();
        again.prune();
        assert_eq!(format!("{graph:?}"), format!("{again:?}"));
    }
}

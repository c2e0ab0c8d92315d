//! What each device does on its own rows: Shardy's manual computation, since the
//! partitioner cannot take apart what a plugin knows by a name of its own.

use std::fmt::Write;

use super::{Emitter, Names, types, used};
use crate::graph::{Graph, Mesh, Node, Shape, Sharding, Value};

impl Emitter {
    /// A node's shapes, operands and results, with a device's share of the
    /// rows. None where there is one device, or the rows do not divide.
    pub(super) fn rows_of_one_device(&self, node: &Node) -> Option<(Vec<Shape>, Vec<Shape>)> {
        let share = |value: &Value| {
            let mut dims = value.shape.dims().to_vec();
            let rows = dims.first_mut()?;
            if !rows.is_multiple_of(self.devices) {
                return None;
            }
            *rows /= self.devices;
            Some(value.shape.with_dims(&dims))
        };
        let shares = |values: &[Value]| values.iter().map(share).collect::<Option<Vec<_>>>();
        if self.devices == 1 {
            return None;
        }
        Some((shares(&node.operands)?, shares(&node.results)?))
    }

    /// `body`, of a device's rows, on each device.
    pub(super) fn shards(
        &mut self,
        node: &Node,
        body: &Graph,
        names: &mut Names,
        depth: usize,
        scope: &str,
    ) {
        let indent = "  ".repeat(depth);
        let operands = used(&node.operands, names);
        let first = self.next;
        for result in &node.results {
            names[result.index()] = self.fresh();
        }
        let results: Vec<String> = (first..self.next).map(|n| format!("%{n}")).collect();
        let _ = writeln!(
            self.text,
            "{indent}{} = \"sdy.manual_computation\"({operands}) ({{",
            results.join(", ")
        );
        self.region(body, depth + 1, scope, "sdy.return");
        let split = |values: &[Value]| {
            let each = values.iter().map(|v| Sharding::split(v.rank(), 0).mlir());
            format!(
                "#sdy.sharding_per_value<[{}]>",
                each.collect::<Vec<_>>().join(", ")
            )
        };
        let location = self.locs.id(scope);
        let _ = writeln!(
            self.text,
            "{indent}}}) {{in_shardings = {}, manual_axes = #sdy<manual_axes{{\"{}\"}}>, \
             out_shardings = {}}} : ({}) -> ({}) loc(#loc{location})",
            split(&node.operands),
            Mesh::DATA,
            split(&node.results),
            types(&node.operands),
            types(&node.results),
        );
    }
}

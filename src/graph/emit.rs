//! StableHLO text in MLIR's generic form, deterministic to the byte.
//!
//! Every op carries its scope path as `loc(...)`, which XLA keeps as
//! `op_name` in HLO dumps and profiles.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::ops::{Emission, Operation};
use super::{Graph, Mesh, Node, Shape, Value};

mod shards;

/// The module that a PJRT plugin compiles.
///
/// `mesh` must be given if the program runs on more than one device.
pub fn stablehlo(name: &str, graph: &Graph, mesh: Option<&Mesh>) -> String {
    let mut e = Emitter {
        text: String::new(),
        next: 0,
        locs: Locations::default(),
        sharded: mesh.is_some(),
        devices: mesh.map_or(1, Mesh::devices),
    };
    let partitions = mesh.map_or(1, Mesh::devices);
    let _ = writeln!(
        e.text,
        "module @{} attributes {{mhlo.num_partitions = {partitions} : i32, mhlo.num_replicas = 1 : i32}} {{",
        identifier(name)
    );
    if let Some(mesh) = mesh {
        let _ = writeln!(e.text, "  sdy.mesh @mesh = {}", mesh.mlir());
    }
    e.main(graph);
    e.text.push_str("}\n");
    e.locs.write(&mut e.text);
    e.text
}

/// MLIR symbols may hold letters, digits, `_`, `$` and `.`.
fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// A string literal.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\{:02X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Location aliases in order of first use.
#[derive(Default)]
struct Locations {
    ids: BTreeMap<String, usize>,
    names: Vec<String>,
}

impl Locations {
    fn id(&mut self, name: &str) -> usize {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        self.ids.insert(name.into(), self.names.len());
        self.names.push(name.into());
        self.names.len() - 1
    }

    fn write(&self, text: &mut String) {
        for (id, name) in self.names.iter().enumerate() {
            let _ = writeln!(text, "#loc{id} = loc({})", quoted(name));
        }
    }
}

/// What [`Emission::Op`] says, as one op is written.
struct Written<'a> {
    name: &'a str,
    attributes: &'a [(&'static str, String)],
    regions: &'a [Cow<'a, Graph>],
    /// The number of operands that the op takes itself.
    own: usize,
}

struct Emitter {
    text: String,
    /// The number of the next SSA name.
    next: usize,
    locs: Locations,
    sharded: bool,
    devices: usize,
}

/// The SSA number of each value of one graph.
type Names = Vec<usize>;

impl Emitter {
    fn fresh(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn main(&mut self, graph: &Graph) {
        let mut names: Names = vec![usize::MAX; graph.defs.len()];
        self.text.push_str("  func.func public @main(");
        for (i, input) in graph.inputs.iter().enumerate() {
            let name = self.fresh();
            names[input.value.index()] = name;
            let mut attributes = Vec::new();
            if let Some(k) = input.aliases {
                attributes.push(format!("tf.aliasing_output = {k} : i32"));
            }
            if let (true, Some(s)) = (self.sharded, &input.sharding) {
                attributes.push(format!("sdy.sharding = #sdy.sharding{}", s.mlir()));
            }
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(self.text, "{comma}%{name}: {}", input.value.shape.mlir());
            self.attributes(&attributes);
            let loc = self.locs.id(&input.name);
            let _ = write!(self.text, " loc(#loc{loc})");
        }
        self.text.push_str(") -> (");
        for (i, output) in graph.outputs.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(self.text, "{comma}{}", output.value.shape.mlir());
            let mut attributes = vec![format!("jax.result_info = {}", quoted(&output.name))];
            if let (true, Some(s)) = (self.sharded, &output.sharding) {
                attributes.push(format!("sdy.sharding = #sdy.sharding{}", s.mlir()));
            }
            self.attributes(&attributes);
        }
        self.text.push_str(") {\n");
        self.nodes(graph, &mut names, 2, "");
        self.terminator("func.return", &graph.output_values(), &names, 2);
        self.text.push_str("  }\n");
    }

    fn attributes(&mut self, attributes: &[String]) {
        if !attributes.is_empty() {
            let _ = write!(self.text, " {{{}}}", attributes.join(", "));
        }
    }

    fn nodes(&mut self, graph: &Graph, names: &mut Names, depth: usize, outer: &str) {
        for node in &graph.nodes {
            let scope = match (outer, graph.scope(node)) {
                ("", inner) => inner.to_string(),
                (outer, "") => outer.to_string(),
                (outer, inner) => format!("{outer}/{inner}"),
            };
            self.node(node, names, depth, &scope);
        }
    }

    fn node(&mut self, node: &Node, names: &mut Names, depth: usize, scope: &str) {
        let operands: Vec<Shape> = node.operands.iter().map(|v| v.shape).collect();
        let results: Vec<Shape> = node.results.iter().map(|v| v.shape).collect();
        match node.op.emit(&operands, &results) {
            // Without a mesh there is nothing to lay out.
            Emission::Op { name, .. } if name.starts_with("sdy.") && !self.sharded => {
                names[node.results[0].index()] = names[node.operands[0].index()];
            }
            Emission::Same => {
                for (result, operand) in node.results.iter().zip(&node.operands) {
                    names[result.index()] = names[operand.index()];
                }
            }
            Emission::Inline(body) => self.inline(node, &body, names, depth, scope),
            Emission::Shards(body) => match self.rows_of_one_device(node) {
                Some((operands, results)) => {
                    let own = node.op.emit(&operands, &results);
                    if let Emission::Shards(body) = own {
                        self.shards(node, &body, names, depth, scope);
                    }
                }
                None => self.inline(node, &body, names, depth, scope),
            },
            Emission::Op {
                name,
                attributes,
                regions,
                captured,
            } => {
                let written = Written {
                    name: &name,
                    attributes: &attributes,
                    regions: &regions,
                    own: node.operands.len() - captured,
                };
                self.op(node, names, depth, scope, &written);
            }
        }
    }

    fn inline(&mut self, node: &Node, body: &Graph, names: &mut Names, depth: usize, scope: &str) {
        let mut inner: Names = vec![usize::MAX; body.defs.len()];
        for (input, operand) in body.inputs.iter().zip(&node.operands) {
            inner[input.value.index()] = names[operand.index()];
        }
        self.nodes(body, &mut inner, depth, scope);
        for (result, output) in node.results.iter().zip(&body.outputs) {
            names[result.index()] = inner[output.value.index()];
        }
    }

    fn op(&mut self, node: &Node, names: &mut Names, depth: usize, scope: &str, op: &Written<'_>) {
        let indent = "  ".repeat(depth);
        self.text.push_str(&indent);
        // Several results are `%4:2`, used as `%4#0` and `%4#1`; to keep one
        // number a value, take consecutive names instead.
        let first = self.next;
        for result in &node.results {
            names[result.index()] = self.fresh();
        }
        let results: Vec<String> = (first..self.next).map(|n| format!("%{n}")).collect();
        if !results.is_empty() {
            let _ = write!(self.text, "{} = ", results.join(", "));
        }
        let (own, captured) = node.operands.split_at(op.own);
        let _ = write!(self.text, "\"{}\"({})", op.name, used(own, names));
        for (i, region) in op.regions.iter().enumerate() {
            self.text.push_str(if i == 0 { " ({\n" } else { ", {\n" });
            if captured.is_empty() {
                self.region(region, depth + 1, scope, "stablehlo.return");
            } else {
                self.capturing(region, captured, names, depth + 1, scope);
            }
            let _ = write!(self.text, "{indent}}}");
        }
        if !op.regions.is_empty() {
            self.text.push(')');
        }
        let attributes: Vec<String> = op
            .attributes
            .iter()
            .map(|(key, value)| {
                if value.is_empty() {
                    (*key).to_string()
                } else {
                    format!("{key} = {value}")
                }
            })
            .collect();
        self.attributes(&attributes);
        let out = types(&node.results);
        let out = if node.results.len() == 1 {
            out
        } else {
            format!("({out})")
        };
        let location = match scope {
            "" => node.op.name().to_string(),
            scope => format!("{scope}/{}", node.op.name()),
        };
        let loc = self.locs.id(&location);
        let _ = writeln!(self.text, " : ({}) -> {out} loc(#loc{loc})", types(own));
    }

    fn region(&mut self, graph: &Graph, depth: usize, scope: &str, end: &str) {
        let indent = "  ".repeat(depth);
        let mut names: Names = vec![usize::MAX; graph.defs.len()];
        if !graph.inputs.is_empty() {
            let arguments: Vec<String> = graph
                .inputs
                .iter()
                .map(|input| {
                    names[input.value.index()] = self.fresh();
                    format!(
                        "%{}: {}",
                        names[input.value.index()],
                        input.value.shape.mlir()
                    )
                })
                .collect();
            let _ = writeln!(self.text, "{indent}^bb0({}):", arguments.join(", "));
        }
        self.nodes(graph, &mut names, depth, scope);
        self.terminator(end, &graph.output_values(), &names, depth);
    }

    /// A region without arguments, whose inputs are values from around it.
    fn capturing(
        &mut self,
        graph: &Graph,
        captured: &[Value],
        outer: &Names,
        depth: usize,
        scope: &str,
    ) {
        let mut names: Names = vec![usize::MAX; graph.defs.len()];
        for (input, value) in graph.inputs.iter().zip(captured) {
            names[input.value.index()] = outer[value.index()];
        }
        self.nodes(graph, &mut names, depth, scope);
        self.terminator("stablehlo.return", &graph.output_values(), &names, depth);
    }

    fn terminator(&mut self, name: &str, values: &[Value], names: &Names, depth: usize) {
        let _ = writeln!(
            self.text,
            "{}\"{name}\"({}) : ({}) -> ()",
            "  ".repeat(depth),
            used(values, names),
            types(values)
        );
    }
}

/// Operands as an op lists them: `%1, %2`.
fn used(values: &[Value], names: &Names) -> String {
    let names: Vec<String> = values
        .iter()
        .map(|v| format!("%{}", names[v.index()]))
        .collect();
    names.join(", ")
}

/// Types as an op's signature lists them.
fn types(values: &[Value]) -> String {
    let types: Vec<String> = values.iter().map(|v| v.shape.mlir()).collect();
    types.join(", ")
}

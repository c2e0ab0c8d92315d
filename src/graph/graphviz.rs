//! A picture of a graph, as text for Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cost::{self, Cost, amount};
use super::emit::quoted;
use super::ops::Operation;
use super::{Graph, Value};

/// A box of the picture: an op, a whole scope, or arguments or results that
/// belong together.
struct Item {
    title: String,
    /// How many ops, arguments or results stand behind it.
    count: usize,
    kind: Kind,
}

enum Kind {
    Op,
    Scope(Cost),
    Inputs(usize),
    Outputs(usize),
}

/// A scope that is drawn as a frame.
#[derive(Default)]
struct Frame {
    name: String,
    frames: Vec<Frame>,
    items: Vec<usize>,
}

impl Frame {
    /// The frame at `path` below this one, made if it is new.
    fn at(&mut self, path: &[&str]) -> &mut Frame {
        let [name, rest @ ..] = path else {
            return self;
        };
        let place = match self.frames.iter().position(|f| f.name == *name) {
            Some(place) => place,
            None => {
                self.frames.push(Frame {
                    name: (*name).into(),
                    ..Frame::default()
                });
                self.frames.len() - 1
            }
        };
        self.frames[place].at(rest)
    }

    fn write(&self, text: &mut String, items: &[Item], number: &mut usize, depth: usize) {
        let indent = "  ".repeat(depth);
        for item in &self.items {
            let _ = writeln!(text, "{indent}n{item} [{}]", items[*item].attributes());
        }
        for frame in &self.frames {
            let _ = writeln!(text, "{indent}subgraph cluster{number} {{");
            *number += 1;
            let _ = writeln!(text, "{indent}  label={}", quoted(&frame.name));
            frame.write(text, items, number, depth + 1);
            let _ = writeln!(text, "{indent}}}");
        }
    }
}

impl Item {
    fn attributes(&self) -> String {
        let of =
            |what: &str, rest: String| format!("{}\n{} {what}, {rest}", self.title, self.count);
        let (shape, label) = match &self.kind {
            Kind::Op => ("box", self.title.clone()),
            Kind::Scope(cost) => ("box3d", of("ops", amount(cost.flops as f64, "FLOP"))),
            Kind::Inputs(bytes) => ("ellipse", of("arguments", amount(*bytes as f64, "B"))),
            Kind::Outputs(bytes) => ("ellipse", of("results", amount(*bytes as f64, "B"))),
        };
        // Graphviz reads `\n` in a label as a new line.
        format!(
            "shape={shape} label={}",
            quoted(&label).replace("\\0A", "\\n")
        )
    }
}

/// The picture under construction.
#[derive(Default)]
struct Picture {
    items: Vec<Item>,
    root: Frame,
    /// Collapsed items by their key.
    known: BTreeMap<String, usize>,
}

impl Picture {
    fn add(&mut self, frames: &[&str], item: Item) -> usize {
        let number = self.items.len();
        self.items.push(item);
        self.root.at(frames).items.push(number);
        number
    }

    /// The item that stands for all of `key`.
    fn collapsed(&mut self, key: String, frames: &[&str], title: &str, kind: Kind) -> usize {
        let number = match self.known.get(&key) {
            Some(number) => *number,
            None => {
                let item = Item {
                    title: title.into(),
                    count: 0,
                    kind,
                };
                let number = self.add(frames, item);
                self.known.insert(key, number);
                number
            }
        };
        self.items[number].count += 1;
        number
    }
}

/// The first `depth` parts, at least one.
fn group(name: &str, depth: usize) -> String {
    let parts: Vec<&str> = name.split('.').take(depth.max(1)).collect();
    parts.join(".")
}

/// The text of a picture in which the scopes down to `depth` are frames; what
/// lies deeper is one box for each scope, with its count of ops and of
/// floating-point operations. Arguments and results stand together by the
/// first parts of their names. Arrows carry the shape of what flows, or the
/// number of values.
pub fn graphviz(graph: &Graph, depth: usize) -> String {
    let mut picture = Picture::default();
    // For each value, the item that it comes from.
    let mut source: Vec<usize> = vec![0; graph.defs.len()];
    for input in &graph.inputs {
        let name = group(&input.name, depth);
        let key = format!("input {name}");
        let number = picture.collapsed(key, &[], &name, Kind::Inputs(0));
        if let Kind::Inputs(bytes) = &mut picture.items[number].kind {
            *bytes += input.value.shape.bytes();
        }
        source[input.value.index()] = number;
    }
    let mut arrows: BTreeMap<(usize, usize), Vec<Value>> = BTreeMap::new();
    let mut arrow = |from: usize, to: usize, value: Value| {
        let values = arrows.entry((from, to)).or_default();
        if from != to && !values.contains(&value) {
            values.push(value);
        }
    };
    for node in graph.nodes() {
        let path = graph.scope(node);
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let number = if parts.len() >= depth {
            let parts = &parts[..depth];
            let (title, frames) = parts
                .split_last()
                .map_or(("program", parts), |(t, f)| (*t, f));
            let scope = Kind::Scope(Cost::default());
            let number =
                picture.collapsed(format!("scope {}", parts.join("/")), frames, title, scope);
            if let Kind::Scope(cost) = &mut picture.items[number].kind {
                *cost += cost::of(node);
            }
            number
        } else {
            let item = Item {
                title: node.op.name().into(),
                count: 1,
                kind: Kind::Op,
            };
            picture.add(&parts, item)
        };
        for operand in &node.operands {
            arrow(source[operand.index()], number, *operand);
        }
        for result in &node.results {
            source[result.index()] = number;
        }
    }
    for output in &graph.outputs {
        let name = group(&output.name, depth);
        let key = format!("output {name}");
        let number = picture.collapsed(key, &[], &name, Kind::Outputs(0));
        if let Kind::Outputs(bytes) = &mut picture.items[number].kind {
            *bytes += output.value.shape.bytes();
        }
        arrow(source[output.value.index()], number, output.value);
    }
    let mut text = String::from("digraph {\n  rankdir=TB\n  node [fontname=\"sans-serif\"]\n");
    picture.root.write(&mut text, &picture.items, &mut 0, 1);
    for ((from, to), values) in arrows {
        let label = match &values[..] {
            [] => continue,
            [value] => value.shape.to_string(),
            values => format!("{} values", values.len()),
        };
        let _ = writeln!(text, "  n{from} -> n{to} [label={}]", quoted(&label));
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, DType, Shape};
    use super::*;

    fn small() -> Graph {
        let b = Builder::new();
        let shape = Shape::new(DType::F32, &[20, 20]);
        let x = b.input("x", shape);
        let w = b.input("base.blocks.0.w", shape);
        let v = b.input("base.blocks.1.w", shape);
        let mut y = x;
        for (i, w) in [w, v].into_iter().enumerate() {
            let _base = b.scope("base");
            let _block = b.scope(format!("blocks.{i}"));
            let _mlp = b.scope("mlp");
            y = b.tanh(b.dot(y, w, &[1], &[0]).unwrap()).unwrap();
        }
        b.output("y", b.neg(y).unwrap());
        b.finish().unwrap()
    }

    /// Depth 2: frames for `base`, boxes for its blocks (20^3 multiplications
    /// and additions, 20^2 tanh), ops for what has no scope.
    #[test]
    fn deeper_scopes_are_boxes_in_frames() {
        let expected = r#"digraph {
  rankdir=TB
  node [fontname="sans-serif"]
  n0 [shape=ellipse label="x\n1 arguments, 1.60 kB"]
  n1 [shape=ellipse label="base.blocks\n2 arguments, 3.20 kB"]
  n4 [shape=box label="negate"]
  n5 [shape=ellipse label="y\n1 results, 1.60 kB"]
  subgraph cluster0 {
    label="base"
    n2 [shape=box3d label="blocks.0\n2 ops, 16.4 kFLOP"]
    n3 [shape=box3d label="blocks.1\n2 ops, 16.4 kFLOP"]
  }
  n0 -> n2 [label="20x20xf32"]
  n1 -> n2 [label="20x20xf32"]
  n1 -> n3 [label="20x20xf32"]
  n2 -> n3 [label="20x20xf32"]
  n3 -> n4 [label="20x20xf32"]
  n4 -> n5 [label="20x20xf32"]
}
"#;
        assert_eq!(graphviz(&small(), 2), expected);
    }

    #[test]
    fn depth_decides_how_many_boxes_there_are() {
        let boxes = |depth| graphviz(&small(), depth).matches("shape=").count();
        // Arguments x and base, one program, one result.
        assert_eq!(boxes(0), 4);
        // The scope base and the op outside of it.
        assert_eq!(boxes(1), 5);
        // Every op by itself; every argument too.
        assert_eq!(boxes(9), 3 + 5 + 1);
    }
}

//! The arena: values in SSA form, nodes in execution order.

use super::ops::Op;
use super::{Shape, Sharding};

/// An SSA value: an index into its graph's arena, with its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    pub(crate) id: u32,
    pub shape: Shape,
}

impl Value {
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// The size of dimension `axis`.
    ///
    /// # Panics
    /// If there is no such dimension.
    pub fn dim(&self, axis: usize) -> usize {
        self.dims()[axis]
    }

    pub fn dtype(&self) -> super::DType {
        self.shape.dtype
    }

    /// The position in the arena.
    pub fn index(&self) -> usize {
        self.id as usize
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Def {
    /// The graph's input of that number.
    Input(usize),
    /// Result `.1` of node `.0`.
    Node(usize, usize),
}

/// An op with its operands and results, and the scope it was added in.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub operands: Vec<Value>,
    pub results: Vec<Value>,
    pub(crate) scope: u32,
}

/// An argument of the graph.
#[derive(Clone, Debug)]
pub struct Input {
    pub name: String,
    pub value: Value,
    pub sharding: Option<Sharding>,
    /// The output that takes over this argument's memory (donation).
    pub aliases: Option<usize>,
}

/// A result of the graph.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub value: Value,
    pub sharding: Option<Sharding>,
}

/// A closed function: everything it uses is an input of its own.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) defs: Vec<Def>,
    pub(crate) scopes: Vec<String>,
}

impl Graph {
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where `value` comes from.
    pub fn def(&self, value: Value) -> Def {
        self.defs[value.index()]
    }

    /// The scope path of a node: `base_encoder/blocks.3/attn`.
    pub fn scope(&self, node: &Node) -> &str {
        &self.scopes[node.scope as usize]
    }

    /// The shapes of the inputs, in order.
    pub fn input_shapes(&self) -> Vec<Shape> {
        self.inputs.iter().map(|i| i.value.shape).collect()
    }

    /// The shapes of the outputs, in order.
    pub fn output_shapes(&self) -> Vec<Shape> {
        self.outputs.iter().map(|o| o.value.shape).collect()
    }

    pub(crate) fn output_values(&self) -> Vec<Value> {
        self.outputs.iter().map(|o| o.value).collect()
    }

    /// The number of a scope path. Consecutive ops share their scope: looking
    /// at the newest is enough to keep the list short.
    pub(crate) fn scope_number(&mut self, path: &str) -> u32 {
        if self.scopes.last().is_none_or(|last| last != path) {
            self.scopes.push(path.into());
        }
        (self.scopes.len() - 1) as u32
    }

    pub(crate) fn new_value(&mut self, shape: Shape, def: Def) -> Value {
        let id = u32::try_from(self.defs.len()).expect("an arena of under 2^32 values");
        self.defs.push(def);
        Value { id, shape }
    }
}

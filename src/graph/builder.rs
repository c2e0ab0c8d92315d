//! How ops are added to a graph. Methods take `&self`, so that calls nest.

use std::cell::RefCell;

use super::error::list;
use super::ops::{Kept, Op, Operation};
use super::{Def, Graph, GraphError, Input, Node, Output, Result, Shape, Sharding, Value};

/// A graph under construction, with the current scope path.
#[derive(Default)]
pub struct Builder {
    pub(super) graph: RefCell<Graph>,
    scope: RefCell<Vec<String>>,
}

/// Leaves its scope when dropped.
pub struct ScopeGuard<'a>(&'a Builder);

impl Drop for ScopeGuard<'_> {
    fn drop(&mut self) {
        self.0.scope.borrow_mut().pop();
    }
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ops added while the guard lives carry `name` in their scope path.
    #[must_use = "the scope ends when the guard is dropped"]
    pub fn scope(&self, name: impl Into<String>) -> ScopeGuard<'_> {
        self.scope.borrow_mut().push(name.into());
        ScopeGuard(self)
    }

    /// The current scope path, its parts joined by `/`.
    pub fn scope_path(&self) -> String {
        self.scope.borrow().join("/")
    }

    /// Adds an argument.
    pub fn input(&self, name: impl Into<String>, shape: Shape) -> Value {
        self.sharded_input(name, shape, None)
    }

    /// Adds an argument that lies over the devices as `sharding` says.
    pub fn sharded_input(
        &self,
        name: impl Into<String>,
        shape: Shape,
        sharding: Option<Sharding>,
    ) -> Value {
        let mut graph = self.graph.borrow_mut();
        let def = Def::Input(graph.inputs.len());
        let value = graph.new_value(shape, def);
        graph.inputs.push(Input {
            name: name.into(),
            value,
            sharding,
            aliases: None,
        });
        value
    }

    /// Declares `value` a result.
    pub fn output(&self, name: impl Into<String>, value: Value) {
        self.sharded_output(name, value, None);
    }

    /// Declares `value` a result that lies over the devices as given.
    pub fn sharded_output(
        &self,
        name: impl Into<String>,
        value: Value,
        sharding: Option<Sharding>,
    ) {
        self.graph.borrow_mut().outputs.push(Output {
            name: name.into(),
            value,
            sharding,
        });
    }

    /// Lets the output named `output` take over the memory of the argument
    /// named `input`.
    pub fn donate(&self, input: &str, output: &str) -> Result<()> {
        let mut graph = self.graph.borrow_mut();
        let missing = |what| GraphError::Invalid(format!("donation: there is no {what}"));
        let k = graph
            .outputs
            .iter()
            .position(|o| o.name == output)
            .ok_or_else(|| missing(format!("output '{output}'")))?;
        let out = graph.outputs[k].value.shape;
        let argument = graph
            .inputs
            .iter_mut()
            .find(|i| i.name == input)
            .ok_or_else(|| missing(format!("input '{input}'")))?;
        if argument.value.shape != out {
            return Err(GraphError::Invalid(format!(
                "donation of '{input}' ({}) to '{output}' ({out}): shapes differ",
                argument.value.shape
            )));
        }
        argument.aliases = Some(k);
        Ok(())
    }

    /// Adds an op: infers its results' shapes, or says why it cannot.
    pub fn push(&self, op: impl Into<Op>, operands: &[Value]) -> Result<Vec<Value>> {
        let op = op.into();
        let shapes: Vec<Shape> = operands.iter().map(|v| v.shape).collect();
        let results = op
            .infer(&shapes)
            .map_err(|reason| self.refusal(op.name(), operands, reason))?;
        let path = self.scope_path();
        let mut graph = self.graph.borrow_mut();
        let scope = graph.scope_number(&path);
        let node = graph.nodes.len();
        let results: Vec<Value> = results
            .into_iter()
            .enumerate()
            .map(|(k, shape)| graph.new_value(shape, Def::Node(node, k)))
            .collect();
        let operands = operands.to_vec();
        graph.nodes.push(Node {
            op,
            operands,
            results: results.clone(),
            scope,
        });
        Ok(results)
    }

    /// The error of an op, or of a method that makes one, whose operands do
    /// not fit.
    pub(super) fn refusal(
        &self,
        op: &str,
        operands: &[Value],
        reason: impl Into<String>,
    ) -> GraphError {
        let shapes: Vec<Shape> = operands.iter().map(|v| v.shape).collect();
        GraphError::Shape {
            op: op.into(),
            scope: self.scope_path(),
            operands: list(&shapes),
            reason: reason.into(),
        }
    }

    /// Adds an op of one result.
    pub fn push1(&self, op: impl Into<Op>, operands: &[Value]) -> Result<Value> {
        Ok(self.push(op, operands)?[0])
    }

    /// Adds a copy of `body`'s ops, its inputs being `args`.
    pub fn inline(&self, body: &Graph, args: &[Value]) -> Result<Vec<Value>> {
        self.inline_with(body, args, &[])
    }

    /// As [`Builder::inline`], values that [`Save`] marks being `kept` already,
    /// in their order.
    pub(super) fn inline_with(
        &self,
        body: &Graph,
        args: &[Value],
        kept: &[Value],
    ) -> Result<Vec<Value>> {
        let expected = body.input_shapes();
        let found: Vec<Shape> = args.iter().map(|a| a.shape).collect();
        if expected != found {
            let reason = format!("the function takes ({})", list(&expected));
            return Err(self.refusal("inline", args, reason));
        }
        let mut map: Vec<Option<Value>> = vec![None; body.defs.len()];
        for (input, arg) in body.inputs.iter().zip(args) {
            map[input.value.index()] = Some(*arg);
        }
        let lookup = |map: &[Option<Value>], v: Value| {
            map[v.index()].ok_or_else(|| {
                GraphError::Invalid("a body uses a value before its definition".into())
            })
        };
        let mut kept = kept.iter();
        for node in &body.nodes {
            let operands: Vec<Value> = node
                .operands
                .iter()
                .map(|v| lookup(&map, *v))
                .collect::<Result<_>>()?;
            let path = body.scope(node);
            let _scope = (!path.is_empty()).then(|| self.scope(path));
            let kept = matches!(node.op, Op::Save(_))
                .then(|| kept.next())
                .flatten();
            let results = match kept {
                Some(kept) => self.push(Kept, &[*kept, operands[0]])?,
                None => self.push(node.op.clone(), &operands)?,
            };
            for (inner, outer) in node.results.iter().zip(results) {
                map[inner.index()] = Some(outer);
            }
        }
        body.outputs.iter().map(|o| lookup(&map, o.value)).collect()
    }

    /// Number of nodes so far: a position for [`super::vjp`].
    pub fn len(&self) -> usize {
        self.graph.borrow().nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends construction: checks the whole graph and drops what no output
    /// depends on. Values of the builder do not name values of the result.
    pub fn finish(self) -> Result<Graph> {
        let mut graph = self.graph.into_inner();
        graph.verify()?;
        graph.prune();
        Ok(graph)
    }
}

/// Traces `f` into a closed function of arguments of the given shapes.
pub fn function<F>(shapes: &[Shape], f: F) -> Result<Graph>
where
    F: FnOnce(&Builder, &[Value]) -> Result<Vec<Value>>,
{
    let b = Builder::new();
    let args: Vec<Value> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| b.input(format!("arg{i}"), *s))
        .collect();
    for (i, value) in f(&b, &args)?.into_iter().enumerate() {
        b.output(format!("result{i}"), value);
    }
    b.finish()
}

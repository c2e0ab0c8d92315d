//! Functions inside of ops: recomputation and loops over layers.
//!
//! Memory, not arithmetic, bounds a trunk of many equal blocks. [`Remat`]
//! keeps only a block's inputs for the reverse walk; [`ScanBlock`] also turns
//! the blocks into one loop, so that the program is compiled once, not once
//! a layer.

use std::borrow::Cow;

use super::{Comparison, Emission, Op, Operation, Vjp, While};
use crate::graph::builder::function;
use crate::graph::error::list;
use crate::graph::vjp::cotangents;
use crate::graph::{Builder, DType, Graph, Output, Result, Shape, Value, cost};

/// Checks operands against the inputs of a function.
pub(super) fn check_call(body: &Graph, operands: &[Shape]) -> std::result::Result<(), String> {
    let expected = body.input_shapes();
    if expected == operands {
        Ok(())
    } else {
        Err(format!("the function takes ({})", list(&expected)))
    }
}

/// The derivative of a function as a function: takes its inputs and the
/// cotangents of its outputs, gives the cotangents of the inputs that are
/// asked for (zeros where there is no dependence).
pub(super) fn backward(body: &Graph, needs: &[bool]) -> Result<Graph> {
    let shapes = [body.input_shapes(), body.output_shapes()].concat();
    function(&shapes, |b, args| {
        let (inputs, cts) = args.split_at(body.inputs.len());
        let outputs = b.inline(body, inputs)?;
        pulled_back(b, &outputs, cts, inputs, needs)
    })
}

/// The cotangents of the inputs that are asked for (zeros where there is no
/// dependence), from those of the outputs.
fn pulled_back(
    b: &Builder,
    outputs: &[Value],
    cts: &[Value],
    inputs: &[Value],
    needs: &[bool],
) -> Result<Vec<Value>> {
    let seeds: Vec<(Value, Value)> = outputs.iter().copied().zip(cts.iter().copied()).collect();
    let wrt: Vec<Value> = inputs
        .iter()
        .zip(needs)
        .filter(|(_, need)| **need)
        .map(|(v, _)| *v)
        .collect();
    cotangents(b, &seeds, &wrt)?
        .into_iter()
        .zip(&wrt)
        .map(|(ct, v)| ct.map_or_else(|| b.full(v.shape, 0.0), Ok))
        .collect()
}

/// Spreads the cotangents of the needed operands over all operands.
pub(super) fn by_need(needs: &[bool], found: Vec<Value>) -> Vec<Option<Value>> {
    let mut found = found.into_iter();
    needs
        .iter()
        .map(|need| if *need { found.next() } else { None })
        .collect()
}

/// Calls a function whose inner values are computed again for the reverse
/// walk instead of being kept, but for those that [`super::Save`] marks.
///
/// Results: the function's, then `saved` values of its own that are kept.
#[derive(Clone, Debug)]
pub struct Remat {
    pub body: Graph,
    pub saved: usize,
}

impl Remat {
    /// A call of `body`, whose marked values become results too.
    pub fn new(mut body: Graph) -> Self {
        let marked = body.nodes.iter().filter(|n| matches!(n.op, Op::Save(_)));
        let marked: Vec<Value> = marked.map(|node| node.results[0]).collect();
        for (i, value) in marked.iter().enumerate() {
            body.outputs.push(Output {
                name: format!("saved{i}"),
                value: *value,
                sharding: None,
            });
        }
        Self {
            body,
            saved: marked.len(),
        }
    }

    /// Its derivative: takes the function's inputs, what was saved, and the
    /// cotangents of the function's own results.
    fn backward(&self, needs: &[bool]) -> Result<Graph> {
        let (inputs, outputs) = (self.body.input_shapes(), self.body.output_shapes());
        let (own, saved) = outputs.split_at(outputs.len() - self.saved);
        function(&[&inputs[..], saved, own].concat(), |b, args| {
            let (args, cts) = args.split_at(inputs.len() + saved.len());
            let (inputs, saved) = args.split_at(inputs.len());
            let outputs = b.inline_with(&self.body, inputs, saved)?;
            pulled_back(b, &outputs[..own.len()], cts, inputs, needs)
        })
    }
}

impl Operation for Remat {
    fn name(&self) -> &'static str {
        "remat"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        check_call(&self.body, operands)?;
        Ok(self.body.output_shapes())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let own = rule.results.len() - self.saved;
        if rule.cts[own..].iter().any(Option::is_some) {
            return Err(rule.refuse(self.name(), "with respect to what it saves"));
        }
        let mut args = [rule.operands, &rule.results[own..]].concat();
        for k in 0..own {
            args.push(rule.ct_or_zero(k)?);
        }
        // Joint with the cotangents, so that the compiler can neither merge
        // the recomputation with the first computation nor start it early.
        let args = rule.b.optimization_barrier(&args)?;
        let found = rule.b.inline(&self.backward(rule.needs)?, &args)?;
        Ok(by_need(rule.needs, found))
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Inline(Cow::Borrowed(&self.body))
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
}

/// A loop of `length` turns over the rows of stacked tensors.
///
/// Operands: carried values, then stacked ones, `length` along `axis`. The
/// body takes the carried values and one row of each stacked one, without that
/// axis; it gives the next carried values and one row of each stacked result.
/// Results: the last carried values, then the stacked results. `reverse` goes
/// from the last row to the first.
#[derive(Clone, Debug)]
pub struct Scan {
    pub body: Graph,
    pub carried: usize,
    pub axis: usize,
    pub length: usize,
    pub reverse: bool,
}

impl Scan {
    /// The shape of so many rows of `row`, stacked.
    fn stacked(&self, rows: usize, row: &Shape) -> Shape {
        let (outer, inner) = row.dims().split_at(self.axis);
        row.with_dims(&[outer, &[rows], inner].concat())
    }

    /// The loop in terms of [`While`]: its state is the turn's number, the
    /// carried values, the stacked operands (unchanged) and results.
    fn lower(&self, operands: &[Shape]) -> Result<Graph> {
        let outputs = self.body.output_shapes();
        let rows = operands.len() - self.carried;
        function(operands, |b, args| {
            let mut state = vec![b.scalar(DType::I32, 0.0)?];
            state.extend(args);
            for row in &outputs[self.carried..] {
                state.push(b.full(self.stacked(self.length, row), 0.0)?);
            }
            let shapes: Vec<Shape> = state.iter().map(|v| v.shape).collect();
            let cond = function(&shapes, |b, state| {
                let end = b.scalar(DType::I32, self.length as f64)?;
                Ok(vec![b.compare(Comparison::Lt, state[0], end)?])
            })?;
            let body = function(&shapes, |b, state| {
                let (turn, rest) = (state[0], &state[1..]);
                let index = if self.reverse {
                    b.sub(b.scalar(DType::I32, (self.length - 1) as f64)?, turn)?
                } else {
                    turn
                };
                let (carry, rest) = rest.split_at(self.carried);
                let (xs, ys) = rest.split_at(rows);
                let mut inputs = carry.to_vec();
                for x in xs {
                    inputs.push(b.row(*x, self.axis, index)?);
                }
                let found = b.inline(&self.body, &inputs)?;
                let (carry, new) = found.split_at(self.carried);
                let mut next = vec![b.add(turn, b.scalar(DType::I32, 1.0)?)?];
                next.extend(carry);
                next.extend(xs);
                for (y, row) in ys.iter().zip(new) {
                    let row = b.reshape(*row, self.stacked(1, &row.shape).dims())?;
                    let starts = b.starts(self.axis, index, y.rank())?;
                    next.push(b.dynamic_update_slice(*y, row, &starts)?);
                }
                Ok(next)
            })?;
            let last = b.push(While { cond, body }, &state)?;
            let ys = 1 + operands.len();
            Ok([&last[1..=self.carried], &last[ys..]].concat())
        })
    }
}

impl Operation for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        if operands.len() < self.carried || self.length == 0 {
            return Err(format!(
                "{} carried values, {} turns",
                self.carried, self.length
            ));
        }
        let (carry, xs) = operands.split_at(self.carried);
        let mut rows = carry.to_vec();
        for x in xs {
            if x.dims().get(self.axis) != Some(&self.length) {
                return Err(format!("{x} has not {} rows", self.length));
            }
            let mut row = x.dims().to_vec();
            row.remove(self.axis);
            rows.push(x.with_dims(&row));
        }
        check_call(&self.body, &rows)?;
        let outputs = self.body.output_shapes();
        if outputs.len() < self.carried || outputs[..self.carried] != *carry {
            return Err(format!(
                "the body gives ({}) for the carried values",
                list(&outputs)
            ));
        }
        let (carry, ys) = outputs.split_at(self.carried);
        if let Some(y) = ys.iter().find(|y| y.rank() < self.axis) {
            return Err(format!("{y} cannot be stacked along axis {}", self.axis));
        }
        let ys = ys.iter().map(|y| self.stacked(self.length, y));
        Ok(carry.iter().copied().chain(ys).collect())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(
            self.name(),
            "loops over layers are differentiated as ScanBlock, which keeps what that needs",
        ))
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let lowered = self
            .lower(operands)
            .expect("the loop of a scan that was inferred is valid");
        Emission::Inline(Cow::Owned(lowered))
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        self.turns() * cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.body]
    }

    fn turns(&self) -> u64 {
        self.length as u64
    }
}

/// Equal blocks applied one after the other: operands are the value they
/// pass on and their parameters, stacked `[length, ...]`.
///
/// Results: the last value and, if `saves`, the value that entered each
/// block `[length, ...]`, from which the reverse walk computes all else
/// again.
#[derive(Clone, Debug)]
pub struct ScanBlock {
    /// Takes the value and one block's parameters, gives the next value.
    pub body: Graph,
    pub length: usize,
    pub saves: bool,
}

impl ScanBlock {
    fn scan(&self) -> Result<Scan> {
        let body = if self.saves {
            function(&self.body.input_shapes(), |b, args| {
                let mut found = b.inline(&self.body, args)?;
                found.push(args[0]);
                Ok(found)
            })?
        } else {
            self.body.clone()
        };
        Ok(Scan {
            body,
            carried: 1,
            axis: 0,
            length: self.length,
            reverse: false,
        })
    }
}

impl Operation for ScanBlock {
    fn name(&self) -> &'static str {
        "scan_block"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        if self.body.outputs.len() != 1 {
            return Err("a block gives one value".into());
        }
        self.scan().map_err(|e| e.to_string())?.infer(operands)
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        if !self.saves {
            return Err(rule.refuse(
                self.name(),
                "it was built without saving its blocks' inputs",
            ));
        }
        if rule.cts[1].is_some() {
            return Err(rule.refuse(self.name(), "with respect to the saved inputs"));
        }
        let b = rule.b;
        // The value's cotangent is carried; the parameters' are stacked.
        let mut needs = rule.needs.to_vec();
        needs[0] = true;
        let back = backward(&self.body, &needs)?;
        let params = self.body.input_shapes()[1..].to_vec();
        let x = rule.operands[0].shape;
        // The scan hands over: carried cotangent, block input, parameters.
        let shapes = [vec![x, x], params].concat();
        let body = function(&shapes, |b, args| {
            let (ct, input, params) = (args[0], args[1], &args[2..]);
            let args = [&[input], params, &[ct]].concat();
            b.inline(&back, &b.optimization_barrier(&args)?)
        })?;
        let mut operands = vec![rule.ct(), rule.results[1]];
        operands.extend(&rule.operands[1..]);
        let scan = Scan {
            body,
            carried: 1,
            axis: 0,
            length: self.length,
            reverse: true,
        };
        let found = b.push(scan, &operands)?;
        Ok(by_need(&needs, found))
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let scan = self.scan().expect("a block that was inferred is valid");
        let lowered = scan
            .lower(operands)
            .expect("the loop of a scan that was inferred is valid");
        Emission::Inline(Cow::Owned(lowered))
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        self.turns() * cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.body]
    }

    fn turns(&self) -> u64 {
        self.length as u64
    }
}

impl Builder {
    /// Calls `body`, whose inner values are recomputed for the gradient.
    pub fn remat(&self, body: Graph, args: &[Value]) -> Result<Vec<Value>> {
        let own = body.outputs.len();
        let mut results = self.push(Remat::new(body), args)?;
        results.truncate(own);
        Ok(results)
    }
}

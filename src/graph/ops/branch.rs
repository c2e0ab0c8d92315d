//! Branches.

use std::borrow::Cow;

use super::block::{backward, by_need, check_call};
use super::{Emission, Operation, Vjp};
use crate::graph::error::list;
use crate::graph::{Builder, DType, Graph, Result, Shape, Value, cost};

/// Runs one of several functions. Operands: what chooses, then the arguments,
/// which all functions take.
///
/// A predicate chooses the first of two where it holds, else the second. An
/// i32 chooses by number; any number that is not there means the last.
#[derive(Clone, Debug)]
pub struct Case {
    pub branches: Vec<Graph>,
}

impl Operation for Case {
    fn name(&self) -> &'static str {
        "case"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [chooser, args @ ..] = operands else {
            return Err("nothing chooses".into());
        };
        let count = self.branches.len();
        let fits = *chooser == Shape::scalar(DType::I32) && count > 0
            || *chooser == Shape::scalar(DType::Pred) && count == 2;
        if !fits {
            return Err(format!("{chooser} cannot choose one of {count} functions"));
        }
        let results = self.branches[0].output_shapes();
        for branch in &self.branches {
            check_call(branch, args)?;
            if branch.output_shapes() != results {
                return Err(format!(
                    "one function gives ({}), another ({})",
                    list(&results),
                    list(&branch.output_shapes())
                ));
            }
        }
        Ok(results)
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let mut operands = rule.operands.to_vec();
        for k in 0..rule.cts.len() {
            operands.push(rule.ct_or_zero(k)?);
        }
        let needs = &rule.needs[1..];
        let branches = self
            .branches
            .iter()
            .map(|branch| backward(branch, needs))
            .collect::<Result<_>>()?;
        let found = rule.b.push(Case { branches }, &operands)?;
        let mut cts = vec![None];
        cts.extend(by_need(needs, found));
        Ok(cts)
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let name = match operands[0].dtype {
            DType::Pred => "stablehlo.if",
            _ => "stablehlo.case",
        };
        Emission::Op {
            name: name.into(),
            attributes: Vec::new(),
            regions: self.branches.iter().map(Cow::Borrowed).collect(),
            captured: operands.len() - 1,
        }
    }

    /// That of the dearest branch.
    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        self.branches.iter().map(cost::flops).max().unwrap_or(0)
    }

    fn regions(&self) -> Vec<&Graph> {
        self.branches.iter().collect()
    }
}

impl Builder {
    /// Runs `yes` where `p` holds, else `no`, on `args`.
    pub fn cond(&self, p: Value, yes: Graph, no: Graph, args: &[Value]) -> Result<Vec<Value>> {
        self.case(p, vec![yes, no], args)
    }

    /// Runs the branch that `chooser` names (see [`Case`]) on `args`.
    pub fn case(&self, chooser: Value, branches: Vec<Graph>, args: &[Value]) -> Result<Vec<Value>> {
        self.push(Case { branches }, &[&[chooser], args].concat())
    }
}

//! Ops that steer the compiler or the derivative.

use std::borrow::Cow;

use super::{Emission, Operation, Vjp, arity};
use crate::graph::error::list;
use crate::graph::{Builder, DType, Graph, Result, Shape, Sharding, Value, cost};

/// Lets values pass, and no gradient: `sg` in the paper's Algorithm 1.
#[derive(Clone, Debug)]
pub struct StopGradient;

impl Operation for StopGradient {
    fn name(&self) -> &'static str {
        "stop_gradient"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        rule.none()
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Same
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }

    fn stops_gradient(&self) -> bool {
        true
    }
}

/// Marks a value that recomputation is to keep, since making it again costs more
/// than its memory: BN's statistics, which all devices make together.
#[derive(Clone, Debug)]
pub struct Save;

impl Operation for Save {
    fn name(&self) -> &'static str {
        "save"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![Some(rule.ct())])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Same
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// The first operand's value, and the second one's derivative: a value that was
/// kept, where the same is computed again.
#[derive(Clone, Debug)]
pub struct Kept;

impl Operation for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [kept, computed] = arity(operands)?;
        match kept == computed {
            true => Ok(vec![kept]),
            false => Err(format!("{kept} in the place of {computed}")),
        }
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![None, Some(rule.ct())])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Same
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// All operands are computed before any result is used. The compiler may
/// not merge computations across it: what keeps recomputation in place.
#[derive(Clone, Debug)]
pub struct OptimizationBarrier;

impl Operation for OptimizationBarrier {
    fn name(&self) -> &'static str {
        "optimization_barrier"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        if operands.is_empty() {
            return Err("nothing to hold back".into());
        }
        Ok(operands.to_vec())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(rule.cts.to_vec())
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.optimization_barrier", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Asks for a layout over the devices. The mesh must be given at emission.
#[derive(Clone, Debug)]
pub struct ShardingConstraint {
    pub sharding: Sharding,
}

impl Operation for ShardingConstraint {
    fn name(&self) -> &'static str {
        "sharding_constraint"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if self.sharding.0.len() != x.rank() {
            return Err(format!("a sharding of {} axes", self.sharding.0.len()));
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![Some(rule.b.constrain(rule.ct(), &self.sharding)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "sdy.sharding_constraint",
            vec![("sharding", format!("#sdy.sharding{}", self.sharding.mlir()))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    pub fn stop_gradient(&self, x: Value) -> Result<Value> {
        self.push1(StopGradient, &[x])
    }

    /// `x`, which recomputation is to keep.
    pub fn save(&self, x: Value) -> Result<Value> {
        self.push1(Save, &[x])
    }

    pub fn optimization_barrier(&self, values: &[Value]) -> Result<Vec<Value>> {
        self.push(OptimizationBarrier, values)
    }

    pub fn constrain(&self, x: Value, sharding: &Sharding) -> Result<Value> {
        self.push1(
            ShardingConstraint {
                sharding: sharding.clone(),
            },
            &[x],
        )
    }
}

/// Repeats `body` while `cond` holds. Both take the whole state; closed, as
/// every function of a graph is.
#[derive(Clone, Debug)]
pub struct While {
    pub cond: Graph,
    pub body: Graph,
}

impl Operation for While {
    fn name(&self) -> &'static str {
        "while"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        for (what, function) in [("condition", &self.cond), ("body", &self.body)] {
            if function.input_shapes() != operands {
                return Err(format!(
                    "the {what} takes ({})",
                    list(&function.input_shapes())
                ));
            }
        }
        if self.cond.output_shapes() != [Shape::scalar(DType::Pred)] {
            return Err(format!(
                "the condition gives ({})",
                list(&self.cond.output_shapes())
            ));
        }
        if self.body.output_shapes() != operands {
            return Err(format!(
                "the body gives ({})",
                list(&self.body.output_shapes())
            ));
        }
        Ok(operands.to_vec())
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(
            self.name(),
            "the number of turns is not known; use a block scan",
        ))
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Op {
            name: "stablehlo.while".into(),
            attributes: Vec::new(),
            regions: vec![Cow::Borrowed(&self.cond), Cow::Borrowed(&self.body)],
            captured: 0,
        }
    }

    /// One turn: the number of turns is not known.
    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        cost::flops(&self.cond) + cost::flops(&self.body)
    }

    fn regions(&self) -> Vec<&Graph> {
        vec![&self.cond, &self.body]
    }
}

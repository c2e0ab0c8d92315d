//! Reverse mode: one walk over the nodes, from the last to the first.

use super::ops::{Operation, Vjp};
use super::{Builder, GraphError, Result, Value};

/// The gradients of a scalar `loss` with respect to `wrt`, added to the
/// graph that `loss` is in.
pub fn gradients(b: &Builder, loss: Value, wrt: &[Value]) -> Result<Vec<Value>> {
    let one = b.full(loss.shape, 1.0)?;
    let found = cotangents(b, &[(loss, one)], wrt)?;
    found
        .into_iter()
        .zip(wrt)
        .map(|(ct, v)| ct.map_or_else(|| b.full(v.shape, 0.0), Ok))
        .collect()
}

/// Vector-Jacobian product: the cotangents of `wrt`, given those of some
/// results. `None` where a value has no part in the results.
///
/// Only what lies between `wrt` and the results is differentiated: an op
/// without derivative may stand anywhere else.
pub fn cotangents(
    b: &Builder,
    seeds: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>> {
    let nodes = b.len();
    let needed = depends_on(b, wrt);
    let mut cts: Vec<Option<Value>> = vec![None; needed.len()];
    for (value, ct) in seeds {
        accumulate(b, &mut cts[value.index()], *ct)?;
    }
    let _grad = b.scope("grad");
    for number in (0..nodes).rev() {
        // Cloned, since the rule adds nodes to the same arena.
        let (node, scope) = {
            let graph = b.graph.borrow();
            let node = &graph.nodes[number];
            let live = node.results.iter().any(|r| cts[r.index()].is_some());
            let wanted = node.operands.iter().any(|v| needed[v.index()]);
            if !live || !wanted {
                continue;
            }
            (node.clone(), graph.scope(node).to_string())
        };
        let _scope = (!scope.is_empty()).then(|| b.scope(scope.as_str()));
        let needs: Vec<bool> = node.operands.iter().map(|v| needed[v.index()]).collect();
        let incoming: Vec<Option<Value>> = node.results.iter().map(|r| cts[r.index()]).collect();
        let rule = Vjp {
            b,
            operands: &node.operands,
            results: &node.results,
            cts: &incoming,
            needs: &needs,
            scope: &scope,
        };
        let outgoing = node.op.vjp(&rule)?;
        debug_assert_eq!(outgoing.len(), node.operands.len(), "{}", node.op.name());
        for ((operand, ct), need) in node.operands.iter().zip(outgoing).zip(&needs) {
            let (Some(ct), true) = (ct, *need) else {
                continue;
            };
            if ct.shape != operand.shape {
                return Err(GraphError::Cotangent {
                    op: node.op.name().into(),
                    scope,
                    expected: operand.shape.to_string(),
                    found: ct.shape.to_string(),
                });
            }
            accumulate(b, &mut cts[operand.index()], ct)?;
        }
    }
    Ok(wrt.iter().map(|v| cts[v.index()]).collect())
}

fn accumulate(b: &Builder, slot: &mut Option<Value>, ct: Value) -> Result<()> {
    *slot = Some(match *slot {
        None => ct,
        Some(sum) => b.add(sum, ct)?,
    });
    Ok(())
}

/// For each value of the arena, whether it depends on one of `wrt` through
/// values that carry gradients.
fn depends_on(b: &Builder, wrt: &[Value]) -> Vec<bool> {
    let graph = b.graph.borrow();
    let mut depends = vec![false; graph.defs.len()];
    for v in wrt {
        depends[v.index()] = true;
    }
    for node in &graph.nodes {
        if !node.op.stops_gradient() && node.operands.iter().any(|v| depends[v.index()]) {
            for r in node.results.iter().filter(|r| r.shape.dtype.is_float()) {
                depends[r.index()] = true;
            }
        }
    }
    depends
}

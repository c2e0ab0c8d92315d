//! Matrix products of any rank.

use super::{Emission, Operation, Vjp, arity, bracketed, check_axes};
use crate::graph::{Builder, DType, Result, Shape, Value};

/// Sums products over the contracting axes, for each index of the batch
/// axes. The result's axes: batch, the left operand's others, the right
/// operand's others.
#[derive(Clone, Debug)]
pub struct DotGeneral {
    pub lhs_batch: Vec<usize>,
    pub rhs_batch: Vec<usize>,
    pub lhs_contract: Vec<usize>,
    pub rhs_contract: Vec<usize>,
    /// The result's element type; sums are kept in it or wider.
    pub out: DType,
}

/// Axes of a rank that are in neither list.
fn others(rank: usize, a: &[usize], b: &[usize]) -> Vec<usize> {
    (0..rank)
        .filter(|i| !a.contains(i) && !b.contains(i))
        .collect()
}

impl DotGeneral {
    /// The same sums for exchanged operands.
    fn exchanged(self) -> Self {
        Self {
            lhs_batch: self.rhs_batch,
            rhs_batch: self.lhs_batch,
            lhs_contract: self.rhs_contract,
            rhs_contract: self.lhs_contract,
            out: self.out,
        }
    }

    /// The cotangent of one operand. `own_*` are its axes, `other_*` the
    /// other operand's; `own_first` says whether it is the left one.
    fn operand_ct(
        &self,
        rule: &Vjp<'_>,
        own: usize,
        own_axes: (&[usize], &[usize]),
        other_axes: (&[usize], &[usize]),
    ) -> Result<Value> {
        let b = rule.b;
        let (x, y) = (rule.operands[own], rule.operands[1 - own]);
        let ((x_batch, x_contract), (y_batch, y_contract)) = (own_axes, other_axes);
        let x_free = others(x.rank(), x_batch, x_contract);
        let y_free = others(y.rank(), y_batch, y_contract);
        // In the result: batch, left free, right free.
        let n = x_batch.len();
        let left = if own == 0 { x_free.len() } else { y_free.len() };
        let y_in_ct: Vec<usize> = if own == 0 {
            (n + left..n + left + y_free.len()).collect()
        } else {
            (n..n + left).collect()
        };
        let ct = b.convert(rule.ct(), y.dtype())?;
        // Batch axes, then x's free axes (from the cotangent) and contracting
        // axes (from y, in y's rising order), in whichever order x has them:
        // mostly no transpose is left.
        let mut contract: Vec<(usize, usize)> = y_contract
            .iter()
            .copied()
            .zip(x_contract.iter().copied())
            .collect();
        contract.sort_unstable();
        let contract: Vec<usize> = contract.into_iter().map(|(_, axis)| axis).collect();
        let batch: Vec<usize> = (0..n).collect();
        let contract_first = contract.first() < x_free.first();
        let (operands, order) = if contract_first {
            ([y, ct], [x_batch, &contract, &x_free].concat())
        } else {
            ([ct, y], [x_batch, &x_free, &contract].concat())
        };
        let mut op = DotGeneral {
            lhs_batch: batch,
            rhs_batch: y_batch.to_vec(),
            lhs_contract: y_in_ct,
            rhs_contract: y_free,
            out: x.dtype(),
        };
        if contract_first {
            op = op.exchanged();
        }
        let product = b.push1(op, &operands)?;
        let mut inverse = vec![0; order.len()];
        for (place, axis) in order.iter().enumerate() {
            inverse[*axis] = place;
        }
        b.transpose(product, &inverse)
    }
}

impl Operation for DotGeneral {
    fn name(&self) -> &'static str {
        "dot_general"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, y] = arity(operands)?;
        if x.dtype != y.dtype {
            return Err(format!("element types {} and {} differ", x.dtype, y.dtype));
        }
        let pairs = |a: &[usize], b: &[usize], what: &str| -> std::result::Result<(), String> {
            if a.len() != b.len() {
                return Err(format!("{} against {} {what} axes", a.len(), b.len()));
            }
            check_axes(a, x.rank(), what)?;
            check_axes(b, y.rank(), what)?;
            for (i, j) in a.iter().zip(b) {
                let (m, n) = (x.dims()[*i], y.dims()[*j]);
                if m != n {
                    return Err(format!("{what} axes {i} and {j} have sizes {m} and {n}"));
                }
            }
            Ok(())
        };
        pairs(&self.lhs_batch, &self.rhs_batch, "batch")?;
        pairs(&self.lhs_contract, &self.rhs_contract, "contracting")?;
        if self.lhs_batch.iter().any(|i| self.lhs_contract.contains(i))
            || self.rhs_batch.iter().any(|i| self.rhs_contract.contains(i))
        {
            return Err("an axis is both batch and contracting".into());
        }
        let dims: Vec<usize> = self
            .lhs_batch
            .iter()
            .map(|i| x.dims()[*i])
            .chain(
                others(x.rank(), &self.lhs_batch, &self.lhs_contract)
                    .iter()
                    .map(|i| x.dims()[*i]),
            )
            .chain(
                others(y.rank(), &self.rhs_batch, &self.rhs_contract)
                    .iter()
                    .map(|i| y.dims()[*i]),
            )
            .collect();
        if dims.len() > crate::graph::MAX_RANK {
            return Err(format!("a result of rank {}", dims.len()));
        }
        Ok(vec![Shape::new(self.out, &dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let lhs = (&self.lhs_batch[..], &self.lhs_contract[..]);
        let rhs = (&self.rhs_batch[..], &self.rhs_contract[..]);
        Ok(vec![
            rule.when(0, || self.operand_ct(rule, 0, lhs, rhs))?,
            rule.when(1, || self.operand_ct(rule, 1, rhs, lhs))?,
        ])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let numbers = format!(
            "#stablehlo.dot<lhs_batching_dimensions = {}, rhs_batching_dimensions = {}, lhs_contracting_dimensions = {}, rhs_contracting_dimensions = {}>",
            bracketed(&self.lhs_batch),
            bracketed(&self.rhs_batch),
            bracketed(&self.lhs_contract),
            bracketed(&self.rhs_contract)
        );
        let mut attributes = vec![("dot_dimension_numbers", numbers)];
        attributes.extend(precision(operands[0].dtype));
        Emission::op("stablehlo.dot_general", attributes)
    }

    fn flops(&self, operands: &[Shape], results: &[Shape]) -> u64 {
        let depth: usize = self
            .lhs_contract
            .iter()
            .map(|i| operands[0].dims()[*i])
            .product();
        2 * results[0].len() as u64 * depth as u64
    }
}

/// Asks for products of f32 operands in f32. By default a TPU would round them
/// to bf16 and a GPU to TF32: who chose f32 over bf16 would not get it.
pub(super) fn precision(dtype: DType) -> Option<(&'static str, String)> {
    let highest = "#stablehlo<precision HIGHEST>";
    (dtype == DType::F32).then(|| ("precision_config", format!("[{highest}, {highest}]")))
}

impl Builder {
    /// Products summed over the paired contracting axes, without batch axes.
    pub fn dot(&self, x: Value, y: Value, x_axes: &[usize], y_axes: &[usize]) -> Result<Value> {
        self.dot_general(x, y, (&[], &[]), (x_axes, y_axes))
    }

    /// Products summed over `contract`, for each index of `batch` (the left
    /// and the right operand's axes). The result has the operands' type.
    pub fn dot_general(
        &self,
        x: Value,
        y: Value,
        batch: (&[usize], &[usize]),
        contract: (&[usize], &[usize]),
    ) -> Result<Value> {
        self.dot_general_as(x.dtype(), x, y, batch, contract)
    }

    /// As [`Builder::dot_general`] with a result of another type: sums of bf16
    /// products kept in f32.
    pub fn dot_general_as(
        &self,
        out: DType,
        x: Value,
        y: Value,
        batch: (&[usize], &[usize]),
        contract: (&[usize], &[usize]),
    ) -> Result<Value> {
        let op = DotGeneral {
            lhs_batch: batch.0.to_vec(),
            rhs_batch: batch.1.to_vec(),
            lhs_contract: contract.0.to_vec(),
            rhs_contract: contract.1.to_vec(),
            out,
        };
        self.push1(op, &[x, y])
    }
}

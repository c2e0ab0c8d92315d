//! Ops that keep every element: other dimensions, another order, repeats.

use super::{Emission, Operation, Vjp, arity, check_axes, i64s};
use crate::graph::{Builder, Result, Shape, Value};

/// The same elements in row-major order under other dimensions.
#[derive(Clone, Debug)]
pub struct Reshape {
    pub shape: Shape,
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if x.len() != self.shape.len() || x.dtype != self.shape.dtype {
            return Err(format!("{} elements do not make {}", x.len(), self.shape));
        }
        Ok(vec![self.shape])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Ok(vec![Some(
            rule.b.reshape(rule.ct(), rule.operands[0].dims())?,
        )])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op("stablehlo.reshape", Vec::new())
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Result dimension `i` is operand dimension `permutation[i]`.
#[derive(Clone, Debug)]
pub struct Transpose {
    pub permutation: Vec<usize>,
}

impl Operation for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if self.permutation.len() != x.rank() {
            return Err(format!("a permutation of {} axes", self.permutation.len()));
        }
        check_axes(&self.permutation, x.rank(), "axis")?;
        let dims: Vec<usize> = self.permutation.iter().map(|p| x.dims()[*p]).collect();
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let mut inverse = vec![0; self.permutation.len()];
        for (i, p) in self.permutation.iter().enumerate() {
            inverse[*p] = i;
        }
        Ok(vec![Some(rule.b.transpose(rule.ct(), &inverse)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.transpose",
            vec![("permutation", i64s(&self.permutation))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

/// Operand dimension `i` becomes result dimension `axes[i]`; a size of 1
/// and missing dimensions are repeated.
#[derive(Clone, Debug)]
pub struct BroadcastInDim {
    pub dims: Vec<usize>,
    pub axes: Vec<usize>,
}

impl Operation for BroadcastInDim {
    fn name(&self) -> &'static str {
        "broadcast_in_dim"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x] = arity(operands)?;
        if self.axes.len() != x.rank() {
            return Err(format!(
                "{} axes for a tensor of rank {}",
                self.axes.len(),
                x.rank()
            ));
        }
        check_axes(&self.axes, self.dims.len(), "axis")?;
        for (size, axis) in x.dims().iter().zip(&self.axes) {
            if *size != 1 && *size != self.dims[*axis] {
                return Err(format!(
                    "size {size} cannot be repeated to {}",
                    self.dims[*axis]
                ));
            }
        }
        Ok(vec![x.with_dims(&self.dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        // Repeating is summed back: all dimensions that were repeated.
        let (b, x) = (rule.b, rule.operands[0]);
        let repeated: Vec<usize> = (0..self.dims.len())
            .filter(|d| match self.axes.iter().position(|a| a == d) {
                Some(i) => x.dim(i) == 1 && self.dims[*d] != 1,
                None => true,
            })
            .collect();
        let sum = b.sum(rule.ct(), &repeated)?;
        // What is left is in the order of `axes`, sorted; put it back.
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        order.sort_by_key(|i| self.axes[*i]);
        let sorted: Vec<usize> = order.iter().map(|i| x.dim(*i)).collect();
        let sum = b.reshape(sum, &sorted)?;
        let mut inverse = vec![0; order.len()];
        for (place, i) in order.iter().enumerate() {
            inverse[*i] = place;
        }
        Ok(vec![Some(b.transpose(sum, &inverse)?)])
    }

    fn emit(&self, _: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::op(
            "stablehlo.broadcast_in_dim",
            vec![("broadcast_dimensions", i64s(&self.axes))],
        )
    }

    fn flops(&self, _: &[Shape], _: &[Shape]) -> u64 {
        0
    }
}

impl Builder {
    /// `x` under other dimensions; `x` itself if they are the same.
    pub fn reshape(&self, x: Value, dims: &[usize]) -> Result<Value> {
        if x.dims() == dims {
            return Ok(x);
        }
        // Too high a rank cannot be a Shape; the op could not say so.
        self.push1(
            Reshape {
                shape: x.shape.with_dims(dims),
            },
            &[x],
        )
    }

    /// `x` with its axes in another order; `x` itself if it is the same.
    pub fn transpose(&self, x: Value, permutation: &[usize]) -> Result<Value> {
        if permutation.len() == x.rank() && permutation.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(x);
        }
        self.push1(
            Transpose {
                permutation: permutation.to_vec(),
            },
            &[x],
        )
    }

    /// `x` with operand axis `i` as result axis `axes[i]` of `dims`.
    pub fn broadcast_in_dim(&self, x: Value, dims: &[usize], axes: &[usize]) -> Result<Value> {
        self.push1(
            BroadcastInDim {
                dims: dims.to_vec(),
                axes: axes.to_vec(),
            },
            &[x],
        )
    }

    /// `x` repeated to `dims` by NumPy's rules; `x` itself if it has them.
    pub fn broadcast_to(&self, x: Value, dims: &[usize]) -> Result<Value> {
        if x.dims() == dims {
            return Ok(x);
        }
        let missing = dims.len().saturating_sub(x.rank());
        let axes: Vec<usize> = (missing..missing + x.rank()).collect();
        self.broadcast_in_dim(x, dims, &axes)
    }

    /// Both operands repeated to their common dimensions: the one place where
    /// binary ops broadcast. Shapes that do not fit pass through, so that the
    /// op itself refuses them by name.
    pub(super) fn broadcast_together(&self, x: Value, y: Value) -> Result<[Value; 2]> {
        match Shape::broadcast_dims(&x.shape, &y.shape) {
            Some(dims) => Ok([self.broadcast_to(x, &dims)?, self.broadcast_to(y, &dims)?]),
            None => Ok([x, y]),
        }
    }
}

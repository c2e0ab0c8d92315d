//! Reductions over sliding windows: pooling.

use std::borrow::Cow;

use super::reduce::binary_body;
use super::{BinaryKind, Comparison, Emission, Operation, ReduceKind, Vjp, arity, i64s};
use crate::graph::builder::function;
use crate::graph::{Builder, Result, Shape, Value};

/// Folds each window into one element. Operands: the tensor and the starting
/// scalar, which also stands in the padding. Every list has one entry for
/// each axis of the tensor.
#[derive(Clone, Debug)]
pub struct ReduceWindow {
    pub kind: ReduceKind,
    pub window: Vec<usize>,
    pub strides: Vec<usize>,
    /// Before and after.
    pub padding: Vec<(usize, usize)>,
}

/// The number of windows along each axis.
fn windows(
    x: &Shape,
    window: &[usize],
    strides: &[usize],
    padding: &[(usize, usize)],
) -> std::result::Result<Vec<usize>, String> {
    if [window.len(), strides.len(), padding.len()] != [x.rank(); 3] {
        return Err(format!(
            "windows of {} axes for a tensor of rank {}",
            window.len(),
            x.rank()
        ));
    }
    (0..x.rank())
        .map(|i| {
            let length = x.dims()[i] + padding[i].0 + padding[i].1;
            if window[i] == 0 || strides[i] == 0 || window[i] > length {
                return Err(format!(
                    "a window of {} with stride {} on axis {i}, which has length {length} with its padding",
                    window[i], strides[i]
                ));
            }
            Ok((length - window[i]) / strides[i] + 1)
        })
        .collect()
}

/// `padding` as MLIR writes it.
fn edges(padding: &[(usize, usize)]) -> String {
    let rows: Vec<String> = padding.iter().map(|(l, h)| format!("[{l}, {h}]")).collect();
    format!(
        "dense<[{}]> : tensor<{}x2xi64>",
        rows.join(", "),
        padding.len()
    )
}

impl ReduceWindow {
    /// An element is in several windows: their cotangents, apart by the
    /// stride, are summed by windows of the same size.
    fn sum_ct(&self, rule: &Vjp<'_>) -> Result<Value> {
        let (b, ct, x) = (rule.b, rule.ct(), rule.operands[0]);
        let spread: Vec<(i64, i64, usize)> = (0..x.rank())
            .map(|i| {
                let (window, stride) = (self.window[i], self.strides[i]);
                let covered = (ct.dim(i) - 1) * stride + 1;
                let low = (window - 1) as i64 - self.padding[i].0 as i64;
                let high = (x.dim(i) + window - 1) as i64 - covered as i64 - low;
                (low, high, stride - 1)
            })
            .collect();
        let flat = vec![(0, 0); x.rank()];
        let ones = vec![1; x.rank()];
        b.reduce_window(
            ReduceKind::Sum,
            b.pad(ct, &spread, 0.0)?,
            &self.window,
            &ones,
            &flat,
        )
    }

    /// The first extreme of each window takes its cotangent. The padding is
    /// made explicit, since plugins differ in what they select there.
    fn extreme_ct(&self, rule: &Vjp<'_>) -> Result<Value> {
        let (b, ct, x) = (rule.b, rule.ct(), rule.operands[0]);
        let apart = |sign: i64| -> Vec<(i64, i64, usize)> {
            self.padding
                .iter()
                .map(|(low, high)| (sign * *low as i64, sign * *high as i64, 0))
                .collect()
        };
        let padded = b.pad(x, &apart(1), self.kind.identity())?;
        let op = SelectAndScatter {
            kind: self.kind,
            window: self.window.clone(),
            strides: self.strides.clone(),
        };
        let dx = b.push1(op, &[padded, ct, b.scalar(x.dtype(), 0.0)?])?;
        b.pad(dx, &apart(-1), 0.0)
    }
}

impl Operation for ReduceWindow {
    fn name(&self) -> &'static str {
        "reduce_window"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, start] = arity(operands)?;
        if start != Shape::scalar(x.dtype) {
            return Err("the starting value must be a scalar of the same type".into());
        }
        self.kind.check(x.dtype)?;
        let dims = windows(&x, &self.window, &self.strides, &self.padding)?;
        Ok(vec![x.with_dims(&dims)])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        if rule.needs[1] {
            return Err(rule.refuse(self.name(), "with respect to its starting value"));
        }
        let dx = match self.kind {
            ReduceKind::Sum => self.sum_ct(rule)?,
            ReduceKind::Max | ReduceKind::Min => self.extreme_ct(rule)?,
            ReduceKind::And | ReduceKind::Or => return rule.none(),
        };
        Ok(vec![Some(dx), None])
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        Emission::Op {
            name: "stablehlo.reduce_window".into(),
            attributes: vec![
                ("window_dimensions", i64s(&self.window)),
                ("window_strides", i64s(&self.strides)),
                ("padding", edges(&self.padding)),
            ],
            regions: vec![Cow::Owned(binary_body(
                self.kind.binary(),
                operands[0].dtype,
            ))],
            captured: 0,
        }
    }

    fn flops(&self, _: &[Shape], results: &[Shape]) -> u64 {
        (results[0].len() * self.window.iter().product::<usize>()) as u64
    }
}

/// The derivative of a window's maximum or minimum. Operands: the tensor, a
/// value for each window, and the starting scalar. Each value is added at
/// the place of its window's first extreme. (TPUs take it only if two axes at
/// least have windows of 1, as batch and feature have.)
#[derive(Clone, Debug)]
pub struct SelectAndScatter {
    pub kind: ReduceKind,
    pub window: Vec<usize>,
    pub strides: Vec<usize>,
}

impl Operation for SelectAndScatter {
    fn name(&self) -> &'static str {
        "select_and_scatter"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [x, source, start] = arity(operands)?;
        if !matches!(self.kind, ReduceKind::Max | ReduceKind::Min) {
            return Err(format!("{:?} selects no element", self.kind));
        }
        if start != Shape::scalar(x.dtype) {
            return Err("the starting value must be a scalar of the same type".into());
        }
        let flat = vec![(0, 0); x.rank()];
        let dims = windows(&x, &self.window, &self.strides, &flat)?;
        if source != x.with_dims(&dims) {
            return Err(format!("the windows take values of {}", x.with_dims(&dims)));
        }
        Ok(vec![x])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(self.name(), "it is itself the derivative of a pooling"))
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        let scalar = Shape::scalar(operands[0].dtype);
        let direction = match self.kind {
            ReduceKind::Min => Comparison::Le,
            _ => Comparison::Ge,
        };
        let select = function(&[scalar, scalar], |b, args| {
            Ok(vec![b.compare(direction, args[0], args[1])?])
        })
        .expect("numbers of one type compare");
        Emission::Op {
            name: "stablehlo.select_and_scatter".into(),
            attributes: vec![
                ("window_dimensions", i64s(&self.window)),
                ("window_strides", i64s(&self.strides)),
            ],
            regions: vec![
                Cow::Owned(select),
                Cow::Owned(binary_body(BinaryKind::Add, operands[0].dtype)),
            ],
            captured: 0,
        }
    }

    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        (operands[1].len() * self.window.iter().product::<usize>()) as u64
    }
}

impl Builder {
    /// Folds each window of `x` into one element.
    pub fn reduce_window(
        &self,
        kind: ReduceKind,
        x: Value,
        window: &[usize],
        strides: &[usize],
        padding: &[(usize, usize)],
    ) -> Result<Value> {
        let start = self.scalar(x.dtype(), kind.identity())?;
        let op = ReduceWindow {
            kind,
            window: window.to_vec(),
            strides: strides.to_vec(),
            padding: padding.to_vec(),
        };
        self.push1(op, &[x, start])
    }

    /// The largest element of each window.
    pub fn max_pool(
        &self,
        x: Value,
        window: &[usize],
        strides: &[usize],
        padding: &[(usize, usize)],
    ) -> Result<Value> {
        self.reduce_window(ReduceKind::Max, x, window, strides, padding)
    }

    /// The mean of each window; what lies in the padding does not count.
    pub fn average_pool(
        &self,
        x: Value,
        window: &[usize],
        strides: &[usize],
        padding: &[(usize, usize)],
    ) -> Result<Value> {
        let sum = self.reduce_window(ReduceKind::Sum, x, window, strides, padding)?;
        let ones = self.full_like(x, 1.0)?;
        let counts = self.reduce_window(ReduceKind::Sum, ones, window, strides, padding)?;
        self.div(sum, counts)
    }
}

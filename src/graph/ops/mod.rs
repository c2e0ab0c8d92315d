//! The op set: one entry per op, holding its attributes, shape rule,
//! derivative and emission side by side.
//!
//! [`Op`] lists them all. The trait has no default for a rule, so an op with
//! a rule missing does not compile.

use std::borrow::Cow;

use super::{Builder, Graph, GraphError, Result, Shape, Value};

pub(super) mod attention;
mod binary;
mod block;
mod branch;
mod choose;
mod chunks;
mod constant;
mod control;
mod convert;
mod convolution;
mod custom_call;
mod dot;
mod dynamic;
mod gather;
mod index;
mod reduce;
mod reshape;
mod slice;
mod softmax;
mod sort;
mod unary;
mod window;

pub use attention::{Attention, AttentionGrad, AttentionKernel};
pub use binary::{Binary, BinaryKind};
pub use block::{Remat, Scan, ScanBlock};
pub use branch::Case;
pub use choose::{Clamp, Compare, Comparison, Select};
pub use chunks::MapChunks;
pub use constant::{Constant, Iota, Literal};
pub use control::{Kept, OptimizationBarrier, Save, ShardingConstraint, StopGradient, While};
pub use convert::{BitcastConvert, Convert};
pub use convolution::{ConvDims, Convolution};
pub use custom_call::CustomCall;
pub use dot::DotGeneral;
pub use dynamic::{DynamicSlice, DynamicUpdateSlice};
pub use gather::{Gather, Scatter, ScatterKind};
pub use index::IndexDims;
pub use reduce::{GeneralReduce, Reduce, ReduceKind};
pub use reshape::{BroadcastInDim, Reshape, Transpose};
pub use slice::{Concatenate, Pad, Reverse, Slice};
pub use softmax::Softmax;
pub use sort::{Sort, TopK};
pub use unary::{Unary, UnaryKind};
pub use window::{ReduceWindow, SelectAndScatter};

/// What an op must say of itself.
pub trait Operation {
    /// The name without dialect, as messages and locations give it.
    fn name(&self) -> &'static str;

    /// The results' shapes, or what is wrong with the operands.
    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String>;

    /// Cotangents of the operands; `None` where an operand has none.
    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>>;

    /// How the op is written in StableHLO.
    fn emit(&self, operands: &[Shape], results: &[Shape]) -> Emission<'_>;

    /// Multiplications and additions, each counted as one operation; data
    /// movement counts none.
    fn flops(&self, operands: &[Shape], results: &[Shape]) -> u64;

    /// The functions inside of the op.
    fn regions(&self) -> Vec<&Graph> {
        Vec::new()
    }

    /// How often these are applied, where that is known.
    fn turns(&self) -> u64 {
        1
    }

    /// Whether no gradient passes, by declaration.
    fn stops_gradient(&self) -> bool {
        false
    }
}

/// How an op is written.
pub enum Emission<'a> {
    /// One op in generic form. An attribute with an empty value is a unit.
    Op {
        name: Cow<'static, str>,
        attributes: Vec<(&'static str, String)>,
        regions: Vec<Cow<'a, Graph>>,
        /// So many of the last operands are not the op's own: its regions
        /// take no arguments and use them as their inputs.
        captured: usize,
    },
    /// The results are the operands themselves.
    Same,
    /// The ops of a function, in place.
    Inline(Cow<'a, Graph>),
    /// The same, by each device on its own rows: all operands and results are
    /// split along their first axis. For what the partitioner cannot take apart.
    /// Asked for again with the shapes of a device's rows.
    Shards(Cow<'a, Graph>),
}

impl Emission<'_> {
    pub(super) fn op(name: &'static str, attributes: Vec<(&'static str, String)>) -> Self {
        Self::Op {
            name: name.into(),
            attributes,
            regions: Vec::new(),
            captured: 0,
        }
    }
}

/// What a derivative rule has to work with. Rules add ops through `b`.
pub struct Vjp<'a> {
    pub b: &'a Builder,
    pub operands: &'a [Value],
    pub results: &'a [Value],
    /// Cotangents of the results; `None` means zero.
    pub cts: &'a [Option<Value>],
    /// Which operands' cotangents are asked for.
    pub needs: &'a [bool],
    pub scope: &'a str,
}

impl Vjp<'_> {
    /// The cotangent of the only result.
    pub fn ct(&self) -> Value {
        self.cts[0].expect("the walk visits only nodes with a cotangent")
    }

    /// The cotangent of result `k`, zeros if it has none.
    pub fn ct_or_zero(&self, k: usize) -> Result<Value> {
        self.cts[k].map_or_else(|| self.b.full(self.results[k].shape, 0.0), Ok)
    }

    /// No operand has a cotangent: the derivative is zero.
    pub fn none(&self) -> Result<Vec<Option<Value>>> {
        Ok(vec![None; self.operands.len()])
    }

    /// `f` for operand `k` if it is asked for.
    pub fn when(&self, k: usize, f: impl FnOnce() -> Result<Value>) -> Result<Option<Value>> {
        if self.needs[k] {
            f().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The error of an op that has no derivative.
    pub fn refuse(&self, op: &'static str, reason: &str) -> GraphError {
        GraphError::NotDifferentiable {
            op: op.into(),
            scope: self.scope.into(),
            reason: reason.into(),
        }
    }
}

/// Declares [`Op`] and sends every call to the entry.
macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        /// An op with its attributes.
        #[derive(Clone, Debug)]
        pub enum Op { $($name($name)),* }

        impl Op {
            /// The names of all variants, in the order of the list.
            pub const VARIANTS: &[&str] = &[$(stringify!($name)),*];

            /// The name of this one.
            pub fn variant(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),* }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self { Self::$name(op) }
        })*

        impl Operation for Op {
            fn name(&self) -> &'static str {
                match self { $(Self::$name(op) => op.name()),* }
            }
            fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
                match self { $(Self::$name(op) => op.infer(operands)),* }
            }
            fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
                match self { $(Self::$name(op) => op.vjp(rule)),* }
            }
            fn emit(&self, operands: &[Shape], results: &[Shape]) -> Emission<'_> {
                match self { $(Self::$name(op) => op.emit(operands, results)),* }
            }
            fn flops(&self, operands: &[Shape], results: &[Shape]) -> u64 {
                match self { $(Self::$name(op) => op.flops(operands, results)),* }
            }
            fn regions(&self) -> Vec<&Graph> {
                match self { $(Self::$name(op) => op.regions()),* }
            }
            fn turns(&self) -> u64 {
                match self { $(Self::$name(op) => op.turns()),* }
            }
            fn stops_gradient(&self) -> bool {
                match self { $(Self::$name(op) => op.stops_gradient()),* }
            }
        }
    };
}

ops!(
    Attention,
    AttentionGrad,
    Binary,
    BitcastConvert,
    BroadcastInDim,
    Case,
    Clamp,
    Compare,
    Concatenate,
    Constant,
    Convert,
    Convolution,
    CustomCall,
    DotGeneral,
    DynamicSlice,
    DynamicUpdateSlice,
    Gather,
    GeneralReduce,
    Iota,
    Kept,
    MapChunks,
    OptimizationBarrier,
    Pad,
    Reduce,
    ReduceWindow,
    Remat,
    Reshape,
    Reverse,
    Save,
    Scan,
    ScanBlock,
    Scatter,
    Select,
    SelectAndScatter,
    ShardingConstraint,
    Slice,
    Softmax,
    Sort,
    StopGradient,
    TopK,
    Transpose,
    Unary,
    While,
);

/// Checks the number of operands.
fn arity<const N: usize>(operands: &[Shape]) -> std::result::Result<[Shape; N], String> {
    operands
        .try_into()
        .map_err(|_| format!("expected {N} operands, found {}", operands.len()))
}

/// `array<i64: 1, 2>`.
fn i64s<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|v| v.to_string()).collect();
    if values.is_empty() {
        "array<i64>".into()
    } else {
        format!("array<i64: {}>", values.join(", "))
    }
}

/// `[1, 2]`, as dialect attributes write lists.
fn bracketed<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|v| v.to_string()).collect();
    format!("[{}]", values.join(", "))
}

/// Checks that `axes` are distinct and within `rank`.
fn check_axes(axes: &[usize], rank: usize, what: &str) -> std::result::Result<(), String> {
    for (i, axis) in axes.iter().enumerate() {
        if *axis >= rank {
            return Err(format!("{what} {axis} of a tensor of rank {rank}"));
        }
        if axes[..i].contains(axis) {
            return Err(format!("{what} {axis} is named twice"));
        }
    }
    Ok(())
}

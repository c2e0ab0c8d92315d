//! What a row of the table says.

use xla_moco::graph::{Builder, DType, Result, Shape, Value};

use crate::array::Array;

/// The type of an operand: `None` is the float type that the run is made in.
pub type ElementOf = Option<DType>;

/// The run's own float type.
pub const FLOAT: ElementOf = None;

/// An operand with its values.
#[derive(Clone, Debug)]
pub struct Operand {
    pub dtype: ElementOf,
    pub dims: Vec<usize>,
    pub values: Values,
}

#[derive(Clone, Debug)]
pub enum Values {
    /// Uniform between the bounds; whole numbers, both bounds included, if
    /// the type has no others.
    Between(f64, f64),
    Given(Vec<f64>),
}

/// Floats of the run's type between bounds.
pub fn float(dims: &[usize], low: f64, high: f64) -> Operand {
    Operand {
        dtype: FLOAT,
        dims: dims.to_vec(),
        values: Values::Between(low, high),
    }
}

/// Numbers of a fixed type between bounds.
pub fn fixed(dtype: DType, dims: &[usize], low: f64, high: f64) -> Operand {
    Operand {
        dtype: Some(dtype),
        dims: dims.to_vec(),
        values: Values::Between(low, high),
    }
}

/// Predicates.
pub fn pred(dims: &[usize]) -> Operand {
    fixed(DType::Pred, dims, 0.0, 1.0)
}

/// The values themselves.
pub fn given(dtype: ElementOf, dims: &[usize], values: &[f64]) -> Operand {
    Operand {
        dtype,
        dims: dims.to_vec(),
        values: Values::Given(values.to_vec()),
    }
}

/// What reverse mode must make of a row.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// Equals central differences, for each operand of the run's float type.
    Checked,
    /// Is zero by declaration, whatever the differences say.
    Stopped,
    /// Is refused with a message that holds this.
    Refused(&'static str),
}

type Build = dyn Fn(&Builder, DType, &[Value]) -> Result<Vec<Value>>;
type Reference = dyn Fn(&[Array]) -> Vec<Array>;

pub struct Row {
    /// The variant of `Op` that the row is about.
    pub op: &'static str,
    pub name: String,
    pub operands: Vec<Operand>,
    /// Adds the op; takes the run's float type.
    pub build: Box<Build>,
    pub reference: Box<Reference>,
    pub gradient: Gradient,
    /// Operands that must be refused, and a part of the message.
    pub refuses: Vec<(Vec<Shape>, &'static str)>,
}

impl Row {
    /// A row whose gradient is checked and which refuses nothing.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        operands: Vec<Operand>,
        build: impl Fn(&Builder, &[Value]) -> Result<Vec<Value>> + 'static,
        reference: impl Fn(&[Array]) -> Vec<Array> + 'static,
    ) -> Self {
        Self {
            op,
            name: name.into(),
            operands,
            build: Box::new(move |b, _, args| build(b, args)),
            reference: Box::new(reference),
            gradient: Gradient::Checked,
            refuses: Vec::new(),
        }
    }

    pub fn gradient(mut self, gradient: Gradient) -> Self {
        self.gradient = gradient;
        self
    }

    pub fn refuses(mut self, operands: &[Shape], message: &'static str) -> Self {
        self.refuses.push((operands.to_vec(), message));
        self
    }

    /// The shapes of the operands in a run of float type `float`.
    pub fn shapes(&self, float: DType) -> Vec<Shape> {
        self.operands
            .iter()
            .map(|o| Shape::new(o.dtype.unwrap_or(float), &o.dims))
            .collect()
    }
}

pub fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

pub fn i32s(dims: &[usize]) -> Shape {
    Shape::new(DType::I32, dims)
}

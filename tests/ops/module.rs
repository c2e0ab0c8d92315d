//! All rows of the table in one graph, so that a plugin compiles only once.

use xla_moco::graph::vjp::cotangents;
use xla_moco::graph::{Builder, DType, Graph, Shape, Value};
use xla_moco::rng::{Purpose, Stream};

use crate::array::Array;
use crate::bytes::round;
use crate::row::{Gradient, Operand, Row, Values};
use crate::rows;

/// A row's place among the inputs and outputs of the module.
pub struct Placed {
    pub row: Row,
    /// For each operand, its input.
    pub operands: Vec<usize>,
    /// For each result, its output.
    pub results: Vec<usize>,
    /// For the results that have a cotangent, which they are and the input
    /// that holds it.
    pub cotangents: Vec<(usize, usize)>,
    /// For the operands of the run's float type, which they are and the
    /// output that holds the gradient.
    pub gradients: Vec<(usize, usize)>,
}

pub struct Module {
    pub graph: Graph,
    /// For each input, its values.
    pub values: Vec<Array>,
    pub rows: Vec<Placed>,
}

/// Inputs and outputs as they are added.
struct Signature<'a> {
    b: &'a Builder,
    /// Floats of the run's type are drawn as numbers of this one.
    narrow: (DType, DType),
    values: Vec<Array>,
    outputs: usize,
}

impl Signature<'_> {
    fn input(&mut self, shape: Shape, array: &Array) -> (usize, Value) {
        let dtype = match shape.dtype {
            d if d == self.narrow.0 => self.narrow.1,
            d => d,
        };
        let number = self.values.len();
        self.values.push(array.map(|x| round(dtype, x)));
        (number, self.b.input(format!("input{number}"), shape))
    }

    fn output(&mut self, value: Value) -> usize {
        let number = self.outputs;
        self.outputs += 1;
        self.b.output(format!("output{number}"), value);
        number
    }
}

/// Values that depend on nothing but the row's name and what they are for.
fn draw(row: &str, what: usize, shape: &Shape, low: f64, high: f64) -> Array {
    let name = row.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let mut stream = Stream::new(0, Purpose::Test, (name, what as u32));
    Array::from_fn(shape.dims(), |_| match shape.dtype.is_float() {
        true => stream.range(low, high),
        false => stream.range(low, high + 1.0).floor(),
    })
}

fn operand_values(row: &str, k: usize, operand: &Operand, shape: &Shape) -> Array {
    match &operand.values {
        Values::Given(data) => Array::new(&operand.dims, data.clone()),
        Values::Between(low, high) => draw(row, k, shape, *low, *high),
    }
}

impl Module {
    /// Rows in float type `float`, whose values are numbers of type `drawn`.
    pub fn new(float: DType, drawn: DType, with_gradients: bool) -> Self {
        let b = Builder::new();
        let mut signature = Signature {
            b: &b,
            narrow: (float, drawn),
            values: Vec::new(),
            outputs: 0,
        };
        let rows = rows::all()
            .into_iter()
            .map(|row| place(&b, &mut signature, row, float, with_gradients))
            .collect();
        let values = signature.values;
        Self {
            graph: b.finish().unwrap(),
            values,
            rows,
        }
    }

    /// The values of a row's operands.
    pub fn operands(&self, place: &Placed) -> Vec<Array> {
        let values = place.operands.iter().map(|i| self.values[*i].clone());
        values.collect()
    }
}

fn place(
    b: &Builder,
    signature: &mut Signature<'_>,
    row: Row,
    float: DType,
    with_gradients: bool,
) -> Placed {
    let _scope = b.scope(row.name.clone());
    let (operands, args): (Vec<usize>, Vec<Value>) = row
        .operands
        .iter()
        .zip(row.shapes(float))
        .enumerate()
        .map(|(k, (operand, shape))| {
            signature.input(shape, &operand_values(&row.name, k, operand, &shape))
        })
        .unzip();
    let failed = |e| panic!("{}: {e}", row.name);
    let results = (row.build)(b, float, &args).unwrap_or_else(failed);
    let mut placed = Placed {
        operands,
        results: results.iter().map(|v| signature.output(*v)).collect(),
        cotangents: Vec::new(),
        gradients: Vec::new(),
        row,
    };
    if !with_gradients || matches!(placed.row.gradient, Gradient::Refused(_)) {
        return placed;
    }
    let mut seeds = Vec::new();
    for (k, result) in results.iter().enumerate() {
        if result.dtype() == float {
            let array = draw(&placed.row.name, 1000 + k, &result.shape, -1.0, 1.0);
            let (number, ct) = signature.input(result.shape, &array);
            placed.cotangents.push((k, number));
            seeds.push((*result, ct));
        }
    }
    let wrt: Vec<usize> = (0..args.len())
        .filter(|k| placed.row.operands[*k].dtype.is_none())
        .collect();
    let asked: Vec<Value> = wrt.iter().map(|k| args[*k]).collect();
    let found =
        cotangents(b, &seeds, &asked).unwrap_or_else(|e| panic!("{}: {e}", placed.row.name));
    for (k, ct) in wrt.into_iter().zip(found) {
        let ct = ct.unwrap_or_else(|| b.full_like(args[k], 0.0).unwrap());
        placed.gradients.push((k, signature.output(ct)));
    }
    placed
}

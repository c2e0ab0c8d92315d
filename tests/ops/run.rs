//! Graphs on a plugin.

use xla_moco::graph::{Graph, Shape, emit};
use xla_moco::pjrt::{Arg, Buffer, Client, Executable};

use crate::array::Array;
use crate::bytes::{decode, encode};
use crate::support::compile;

/// A compiled graph.
pub struct Program<'a> {
    client: &'a Client,
    executable: Executable,
    inputs: Vec<Shape>,
    outputs: Vec<Shape>,
}

impl<'a> Program<'a> {
    pub fn new(client: &'a Client, graph: &Graph) -> Self {
        Self {
            client,
            executable: compile(client, &emit::stablehlo("test", graph, None)),
            inputs: graph.input_shapes(),
            outputs: graph.output_shapes(),
        }
    }

    /// Puts the array for input `i` on the device.
    pub fn upload(&self, i: usize, array: &Array) -> Buffer {
        let shape = self.inputs[i];
        assert_eq!(shape.dims(), array.dims);
        let bytes = encode(shape.dtype, array);
        let device = &self.client.devices()[0];
        self.client
            .buffer_from_host(&bytes, shape.dtype, shape.dims(), device)
            .unwrap()
    }

    pub fn run(&self, inputs: &[&Buffer]) -> Vec<Array> {
        let arguments = inputs.iter().map(|b| Arg::Borrow(b)).collect();
        let run = self.executable.execute(vec![arguments]).unwrap();
        let pending: Vec<_> = run.buffers[0]
            .iter()
            .map(|b| b.to_host_async().unwrap())
            .collect();
        pending
            .into_iter()
            .zip(&self.outputs)
            .map(|(bytes, shape)| decode(shape.dtype, shape.dims(), &bytes.wait().unwrap()))
            .collect()
    }

    /// Runs once on arrays.
    pub fn call(&self, inputs: &[Array]) -> Vec<Array> {
        assert_eq!(inputs.len(), self.inputs.len());
        let buffers: Vec<Buffer> = (0..inputs.len())
            .map(|i| self.upload(i, &inputs[i]))
            .collect();
        self.run(&buffers.iter().collect::<Vec<_>>())
    }
}

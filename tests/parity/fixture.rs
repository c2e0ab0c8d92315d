//! Reading fixtures, running graphs on them, comparing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use xla_moco::graph::{Builder, DType, Graph, Shape, Value, emit};
use xla_moco::pjrt::{Arg, Client, ClientOptions, Executable};

use crate::support::{compile, cpu_plugins, test_options};

/// A tensor of a fixture, its elements' bytes as they are in the file.
#[derive(Clone)]
pub struct Tensor {
    pub shape: Shape,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(dims: &[usize], values: &[f32]) -> Self {
        Self {
            shape: Shape::new(DType::F32, dims),
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    pub fn values(&self) -> Vec<f64> {
        assert_eq!(self.shape.dtype, DType::F32);
        let float = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
        self.bytes.chunks_exact(4).map(float).collect()
    }
}

pub type Tensors = BTreeMap<String, Tensor>;

pub fn read(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/parity")
        .join(name);
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::I32 => DType::I32,
            other => panic!("{name} is {other:?}"),
        };
        let shape = Shape::new(dtype, view.shape());
        (
            name,
            Tensor {
                shape,
                bytes: view.data().to_vec(),
            },
        )
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The entries under `prefix.`, without it.
pub fn part(tensors: &Tensors, prefix: &str) -> Tensors {
    let found = |(name, tensor): (&String, &Tensor)| {
        let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
        Some((rest.to_owned(), tensor.clone()))
    };
    tensors.iter().filter_map(found).collect()
}

/// The default CPU plugin with one device.
pub fn client() -> Arc<Client> {
    let (_, plugin) = cpu_plugins().remove(0);
    let options = ClientOptions {
        extra: test_options(),
        ..ClientOptions::default()
    };
    Client::new(&plugin, &options).unwrap()
}

/// A compiled graph, called by its inputs' names.
pub struct Program {
    client: Arc<Client>,
    executable: Executable,
    graph: Graph,
}

impl Program {
    pub fn new(client: &Arc<Client>, graph: Graph) -> Self {
        let text = emit::stablehlo("parity", &graph, None);
        Self {
            client: Arc::clone(client),
            executable: compile(client, &text),
            graph,
        }
    }

    pub fn call(&self, inputs: &Tensors) -> Tensors {
        let upload = |input: &xla_moco::graph::Input| {
            let tensor = inputs
                .get(&input.name)
                .unwrap_or_else(|| panic!("the fixture has no {}", input.name));
            assert_eq!(tensor.shape, input.value.shape, "{}", input.name);
            let shape = tensor.shape;
            let device = &self.client.devices()[0];
            self.client
                .buffer_from_host(&tensor.bytes, shape.dtype, shape.dims(), device)
                .unwrap()
        };
        let arguments = self.graph.inputs.iter().map(upload).map(Arg::Donate);
        let run = self.executable.execute(vec![arguments.collect()]).unwrap();
        let outputs = self.graph.outputs.iter().zip(&run.buffers[0]);
        outputs
            .map(|(output, buffer)| {
                let tensor = Tensor {
                    shape: output.value.shape,
                    bytes: buffer.to_host().unwrap(),
                };
                (output.name.clone(), tensor)
            })
            .collect()
    }
}

/// Declares one input for each tensor.
pub fn declare(b: &Builder, tensors: &Tensors) -> BTreeMap<String, Value> {
    let input = |(name, tensor): (&String, &Tensor)| (name.clone(), b.input(name, tensor.shape));
    tensors.iter().map(input).collect()
}

/// |found - expected| / |expected|, norms over all elements.
pub fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let (found, expected) = (found.values(), expected.values());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(&expected).map(|(f, e)| f - e));
    difference / norm(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, bound: f64) {
    let distance = distance(found, expected);
    assert!(
        distance <= bound,
        "{what}: {distance:e} off, more than {bound:e}"
    );
}

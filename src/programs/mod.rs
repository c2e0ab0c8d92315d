//! What gets compiled: whole programs, from arguments to results.

pub mod agreement;
pub mod attention;
pub mod augment;
pub mod batch;
pub mod features;
pub mod gather;
pub mod knn_queue;
pub mod mixing;
pub mod monitors;
pub mod neighbours;
pub mod probe_step;
pub mod summary;
pub mod train_step;
pub mod views;

use serde_json::{Value as Json, json};

use crate::config::{Lowering, RunConfig};
use crate::graph::{Graph, Mesh, Shape, block, emit};

/// A program: its graph, and how its arguments and results line up.
pub struct Program {
    pub name: &'static str,
    pub graph: Graph,
    /// None on one device.
    pub mesh: Option<Mesh>,
    /// So many of the first arguments are the state, and as many of the first
    /// results are its next values: same names, same order, same memory.
    pub state: usize,
    /// Names of the elements of the result `metrics` (f32); may be empty.
    pub metrics: Vec<String>,
}

impl Program {
    /// StableHLO, as plugins take it.
    pub fn text(&self) -> String {
        emit::stablehlo(self.name, &self.graph, self.mesh.as_ref())
    }

    /// Arguments and results in order: name, type and shape of each; and the
    /// names of the elements of `metrics`.
    pub fn signature(&self) -> Json {
        let entry = |name: &str, shape: Shape| json!({"name": name, "dtype": shape.dtype.mlir(), "shape": shape.dims()});
        let inputs = self.graph.inputs.iter();
        let outputs = self.graph.outputs.iter();
        json!({
            "inputs": inputs.map(|i| entry(&i.name, i.value.shape)).collect::<Vec<_>>(),
            "outputs": outputs.map(|o| entry(&o.name, o.value.shape)).collect::<Vec<_>>(),
            "metrics": self.metrics,
        })
    }
}

/// A dense row-major little-endian array on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostArray {
    pub name: String,
    pub shape: Shape,
    pub data: Vec<u8>,
}

impl HostArray {
    pub fn f32(name: impl Into<String>, dims: &[usize], values: &[f32]) -> Self {
        let shape = Shape::new(crate::graph::DType::F32, dims);
        assert_eq!(shape.len(), values.len());
        Self {
            name: name.into(),
            shape,
            data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    pub fn zeros(name: impl Into<String>, shape: Shape) -> Self {
        Self {
            name: name.into(),
            shape,
            data: vec![0; shape.bytes()],
        }
    }
}

/// The mesh that a configuration asks for; none for one device.
pub fn mesh(config: &RunConfig) -> Option<Mesh> {
    (config.mesh.data > 1).then(|| Mesh::data(config.mesh.data))
}

/// How the trunk is lowered, as the configuration says; none where it leaves
/// that open.
pub fn lowering(config: &RunConfig) -> Option<block::Lowering> {
    Some(match config.lowering {
        Lowering::Auto => return None,
        Lowering::Unrolled => block::Lowering::Unrolled,
        Lowering::RematAttention => block::Lowering::RematAttention,
        Lowering::RematMlp => block::Lowering::RematMlp,
        Lowering::Remat => block::Lowering::Remat,
        Lowering::Scan => block::Lowering::Scan,
    })
}

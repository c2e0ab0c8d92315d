//! A backbone as an ONNX model: normalised pictures `pixels` f32 [n, 3, S, S]
//! to `features` f32 [n, dim], in ops of opset 17. Weights keep our names, with
//! `base_encoder.` before them.

mod layers;
mod proto;
mod read;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;

use super::record::{NOTE, note};
use super::weights::Weights;
use crate::checkpoint::atomic;
use proto::{
    Attribute, Dimension, EXTERNAL, Entry, FLOAT, Graph, INT64, Model, Node, Opset, Tensor,
    TensorShape, TensorType, Type, ValueInfo,
};

pub use read::list;

/// The first with LayerNormalization.
const OPSET: i64 = 17;
/// The format's version that came with it.
const IR_VERSION: i64 = 8;

pub const MODEL_FILE: &str = "model.onnx";

/// Beside it, where the weights are too many for one protobuf message, which
/// ends at 2 GiB.
pub const DATA_FILE: &str = "model.onnx.data";

/// Bytes of weights that stay in the model's own file.
const MOST_INSIDE: usize = 1 << 30;

/// What weights' names begin with; other constants have other names.
pub const PREFIX: &str = "base_encoder.";

/// A graph in the making. Values are known by their names.
struct Ops<'a> {
    weights: &'a Weights,
    graph: Graph,
    /// What the names of nodes begin with.
    scope: String,
    /// The elements of large weights, in order, for the second file.
    outside: Option<Vec<&'a [u8]>>,
    outside_bytes: usize,
}

/// Writes `model.onnx`.
///
/// # Errors
/// Those of the file system.
pub fn write(out: &Path, weights: &Weights) -> Result<()> {
    let bytes: usize = weights
        .backbone
        .iter()
        .map(|tensor| tensor.data.len())
        .sum();
    write_split(out, weights, bytes > MOST_INSIDE)
}

fn write_split(out: &Path, weights: &Weights, split: bool) -> Result<()> {
    let mut ops = Ops {
        weights,
        graph: Graph::default(),
        scope: String::new(),
        outside: split.then(Vec::new),
        outside_bytes: 0,
    };
    let features = layers::backbone(&mut ops, "pixels")?;
    ops.node("Identity", &[&features], &[], "features");
    let model = &weights.config.model;
    let side = model.image_size as i64;
    let mut graph = ops.graph;
    graph.name = "backbone".to_owned();
    graph.input = vec![value("pixels", &[3, side, side])];
    graph.output = vec![value("features", &[model.features() as i64])];
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "xla-moco".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![Opset {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: vec![entry(NOTE, &note(weights).to_string())],
    };
    if let Some(parts) = &ops.outside {
        atomic::replace(&out.join(DATA_FILE), |file| {
            parts.iter().try_for_each(|part| file.write_all(part))
        })?;
    }
    atomic::write_file(&out.join(MODEL_FILE), &model.encode_to_vec())
}

/// f32 [n, dims ..].
fn value(name: &str, dims: &[i64]) -> ValueInfo {
    let fixed = dims.iter().map(|dim| Dimension {
        value: Some(*dim),
        parameter: None,
    });
    let batch = Dimension {
        value: None,
        parameter: Some("n".to_owned()),
    };
    ValueInfo {
        name: name.to_owned(),
        kind: Some(Type {
            tensor: Some(TensorType {
                elem_type: FLOAT,
                shape: Some(TensorShape {
                    dim: std::iter::once(batch).chain(fixed).collect(),
                }),
            }),
        }),
    }
}

fn entry(key: &str, value: &str) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

impl<'a> Ops<'a> {
    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute], output: &str) {
        self.graph.node.push(Node {
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.to_vec(),
        });
    }

    /// An op with one result, whose name is given back.
    fn op(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let number = self.graph.node.len();
        let output = format!("{}{}_{number}", self.scope, op.to_lowercase());
        self.node(op, inputs, attributes, &output);
        output
    }

    /// A weight of ours as a constant, once however often it is asked for.
    fn weight(&mut self, name: &str) -> Result<String> {
        let full = format!("{PREFIX}{name}");
        if self
            .graph
            .initializer
            .iter()
            .any(|known| known.name == full)
        {
            return Ok(full);
        }
        let tensor = self.weights.get(name)?;
        let mut constant = Tensor {
            dims: tensor.shape.iter().map(|dim| *dim as i64).collect(),
            data_type: FLOAT,
            name: full.clone(),
            ..Tensor::default()
        };
        match &mut self.outside {
            None => constant.raw_data = Some(tensor.data.clone()),
            Some(parts) => {
                constant.data_location = EXTERNAL;
                constant.external_data = vec![
                    entry("location", DATA_FILE),
                    entry("offset", &self.outside_bytes.to_string()),
                    entry("length", &tensor.data.len().to_string()),
                ];
                parts.push(&tensor.data);
                self.outside_bytes += tensor.data.len();
            }
        }
        self.graph.initializer.push(constant);
        Ok(full)
    }

    fn has(&self, name: &str) -> bool {
        self.weights.get(name).is_ok()
    }

    fn constant(&mut self, dims: &[i64], data_type: i32, bytes: Vec<u8>) -> String {
        let name = format!("constant_{}", self.graph.initializer.len());
        self.graph.initializer.push(Tensor {
            dims: dims.to_vec(),
            data_type,
            name: name.clone(),
            raw_data: Some(bytes),
            ..Tensor::default()
        });
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(&[values.len() as i64], INT64, bytes)
    }

    /// An i64 without dimensions.
    fn index(&mut self, value: i64) -> String {
        self.constant(&[], INT64, value.to_le_bytes().to_vec())
    }

    fn float(&mut self, value: f32) -> String {
        self.constant(&[], FLOAT, value.to_le_bytes().to_vec())
    }

    /// The dimensions of a weight.
    fn dims(&self, name: &str) -> Result<Vec<i64>> {
        let tensor = self.weights.get(name).context("dimensions of a weight")?;
        Ok(tensor.shape.iter().map(|dim| *dim as i64).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{Hints, read};

    #[test]
    fn weights_in_a_file_of_their_own_are_found_again() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = root.join("tests/fixtures/convert/tiny.pth.tar");
        let weights = read(&file, None, &Hints::default()).unwrap();
        let out = tempfile::tempdir().unwrap();
        write_split(out.path(), &weights, true).unwrap();
        let bytes = |name| std::fs::metadata(out.path().join(name)).unwrap().len();
        let floats: usize = weights.backbone.iter().map(|t| t.data.len() / 4).sum();
        assert_eq!(bytes(DATA_FILE), 4 * floats as u64);
        assert!(bytes(MODEL_FILE) < bytes(DATA_FILE));
        let again = read(out.path(), None, &Hints::default()).unwrap();
        assert_eq!(again.backbone, weights.backbone);
        assert_eq!(again.config.model, weights.config.model);
        // Nothing outside of the folder is read.
        let model = out.path().join(MODEL_FILE);
        let text = std::fs::read(&model).unwrap();
        let at = text
            .windows(DATA_FILE.len())
            .position(|w| w == DATA_FILE.as_bytes());
        let mut text = text;
        text[at.unwrap()..][..3].copy_from_slice(b"../");
        std::fs::write(&model, text).unwrap();
        let error = format!(
            "{:#}",
            read(out.path(), None, &Hints::default()).unwrap_err()
        );
        assert!(error.contains("is not in model.onnx.data"), "{error}");
    }
}

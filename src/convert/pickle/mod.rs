//! The pickles of `torch.save`, read by an interpreter that executes nothing.
//!
//! A pickle is a program for a stack machine, and Python's own interpreter
//! calls whatever it names. This one knows the opcodes that state dicts are
//! written with and the few globals of [`Global`]; what these would build
//! becomes a plain [`Value`]. Anything else is refused by its name.
//!
//! Values lie in an arena and refer to each other by number: nothing here
//! recurses, whatever the nesting, and a cycle is only a number. So many
//! opcodes are run at most, each of which makes at most one value, so memory
//! is bounded before anything is read.

mod calls;
mod machine;

use std::rc::Rc;

use anyhow::{Context, Result, bail};

use crate::checkpoint::Dtype;
use machine::Machine;

/// A pickle is a list of names and shapes; a larger one is none of ours.
pub const MAX_BYTES: usize = 8 << 20;

/// A value's number in its pickle's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u32);

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of over 64 bits: its bytes, little-endian two's complement.
    Long(Box<[u8]>),
    Float(f64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Box<Tensor>),
    /// Something harmless that nobody here looks into.
    Opaque,
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A class of storages, by its elements.
    StorageOf(Dtype),
    Size,
    /// What training scripts leave beside the weights.
    Ignored,
}

/// Where elements lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    pub dtype: Dtype,
    /// Its name in the file.
    pub key: String,
    /// Elements.
    pub len: usize,
}

/// A view of a storage: offset and strides in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub storage: Rc<Storage>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes that it took.
    pub bytes: usize,
}

impl Pickle {
    /// Reads the pickle that `input` begins with.
    ///
    /// # Errors
    /// What is refused, and at which byte.
    pub fn read(input: &[u8]) -> Result<Self> {
        let mut machine = Machine::new(&input[..input.len().min(MAX_BYTES)]);
        let root = machine
            .run()
            .with_context(|| format!("in its pickle, at byte {}", machine.at()))?;
        Ok(Self {
            bytes: machine.at(),
            values: machine.into_values(),
            root,
        })
    }

    pub fn root(&self) -> Id {
        self.root
    }

    pub fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    /// All storages that it names.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The entries of a dictionary whose keys are texts, in their order; other
    /// keys are passed over. None if it is no dictionary.
    pub fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&str, Id)>> {
        let Value::Dict(entries) = self.value(id) else {
            return None;
        };
        Some(
            entries
                .iter()
                .filter_map(|(key, value)| match self.value(*key) {
                    Value::Text(key) => Some((&**key, *value)),
                    _ => None,
                }),
        )
    }
}

/// The allow-list.
fn global(module: &str, name: &str) -> Result<Global> {
    let element = |name: &str| {
        Some(match name {
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "DoubleStorage" => Dtype::F64,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" | "UntypedStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            _ => return None,
        })
    };
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::Size,
        ("argparse", "Namespace")
        | ("numpy", "dtype")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("_codecs", "encode") => Global::Ignored,
        ("torch" | "torch.cuda" | "torch.storage", name) if element(name).is_some() => {
            Global::StorageOf(element(name).context("a storage")?)
        }
        _ => bail!(
            "it names {module}.{name}, which is not on the list of what a state dict needs; \
             loading it in Python would run code. Save the state dict alone, with torch.save \
             or safetensors"
        ),
    })
}

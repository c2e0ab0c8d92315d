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
use safetensors::Dtype;

use machine::Machine;

/// A pickle is a list of names and shapes; a larger one is none of ours.
pub const MAX_BYTES: usize = 8 << 20;

/// The longest pickle of arrays.
pub const MAX_ARRAYS_BYTES: usize = 192 << 20;

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
    /// A NumPy array.
    Array(Box<Array>),
    /// Bytes that are no short text: where they lie in the pickle.
    Bytes(Extent),
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
    RebuildArray,
    ArrayClass,
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

/// A part of a pickle's own bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub at: usize,
    pub len: usize,
}

/// A NumPy array in row-major order, of whatever elements; without dimensions
/// until its state was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Extent,
}

/// A view of a storage: offset and strides in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub storage: Rc<Storage>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a pickle may name, and how large it may be.
struct Allowed {
    global: fn(&str, &str) -> Option<Global>,
    /// What those are for, and what else the owner of a refused one can do.
    what: &'static str,
    advice: &'static str,
    bytes: usize,
    /// Each makes at most one value.
    opcodes: usize,
}

/// Weights: a tensor takes about 40 opcodes, and a ViT-H's checkpoint with its
/// optimizer has fewer than 2,000 of them.
const STATE_DICT: Allowed = Allowed {
    global: of_state_dicts,
    what: "state dict",
    advice: "Save the state dict alone, with torch.save or safetensors",
    bytes: MAX_BYTES,
    opcodes: 1 << 18,
};

/// Arrays in a dictionary: CIFAR-100's training pictures are 153.6 MB, beside
/// 50,000 names and 100,000 labels.
const ARRAYS: Allowed = Allowed {
    global: of_arrays,
    what: "dictionary of arrays",
    advice: "Expected are the files of CIFAR's python version as they were published",
    bytes: MAX_ARRAYS_BYTES,
    opcodes: 1 << 19,
};

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
        Self::read_allowed(input, &STATE_DICT)
    }

    /// As [`Pickle::read`], for dictionaries of NumPy arrays and lists, which
    /// may be longer, and name nothing else.
    ///
    /// # Errors
    /// What is refused, and at which byte.
    pub fn read_arrays(input: &[u8]) -> Result<Self> {
        Self::read_allowed(input, &ARRAYS)
    }

    fn read_allowed(input: &[u8], allowed: &Allowed) -> Result<Self> {
        let mut machine = Machine::new(&input[..input.len().min(allowed.bytes)], allowed);
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

/// The allow-list of arrays.
fn of_arrays(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
            Global::RebuildArray
        }
        ("numpy", "ndarray") => Global::ArrayClass,
        ("numpy", "dtype") => Global::Ignored,
        _ => return None,
    })
}

/// The allow-list of weights.
fn of_state_dicts(module: &str, name: &str) -> Option<Global> {
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
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::Size,
        ("argparse", "Namespace")
        | ("numpy", "dtype")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("_codecs", "encode") => Global::Ignored,
        ("torch" | "torch.cuda" | "torch.storage", name) => Global::StorageOf(element(name)?),
        _ => return None,
    })
}

impl Allowed {
    fn global(&self, module: &str, name: &str) -> Result<Global> {
        let Some(global) = (self.global)(module, name) else {
            let Self { what, advice, .. } = self;
            bail!(
                "it names {module}.{name}, which is not on the list of what a {what} needs; \
                 loading it in Python would run code. {advice}"
            );
        };
        Ok(global)
    }
}

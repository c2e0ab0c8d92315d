//! What the globals of the allow-list build.

use std::rc::Rc;

use anyhow::{Result, bail, ensure};

use super::machine::Machine;
use super::{Array, Global, Id, Storage, Tensor, Value};

/// Dimensions of a tensor at most.
const MAX_RANK: usize = 8;

/// Arguments of a call at most.
const MAX_ARGUMENTS: usize = 16;

/// The longest name of a storage, in bytes.
const MAX_KEY: usize = 256;

impl Machine<'_> {
    /// What a call of a known global gives.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let Value::Global(callable) = *self.value(callable) else {
            bail!("it calls something that is no global");
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            bail!("the arguments of a call are no tuple");
        };
        ensure!(
            arguments.len() <= MAX_ARGUMENTS,
            "a call has {} arguments",
            arguments.len()
        );
        let arguments = arguments.clone();
        match (callable, &arguments[..]) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor(*storage, *offset, *shape, *strides)?;
                self.push(Value::Tensor(Box::new(tensor)));
            }
            (Global::RebuildParameter, [tensor, ..]) => {
                ensure!(
                    matches!(self.value(*tensor), Value::Tensor(_)),
                    "a parameter is no tensor"
                );
                self.push_again(*tensor);
            }
            (Global::RebuildArray, [class, ..])
                if *self.value(*class) == Value::Global(Global::ArrayClass) =>
            {
                self.push(Value::Array(Box::default()));
            }
            (Global::Size, [dims]) => self.push_again(*dims),
            (Global::Ignored, _) => self.push(Value::Opaque),
            _ => bail!("it calls {callable:?} with {} arguments", arguments.len()),
        }
        Ok(())
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<Tensor> {
        let Value::Storage(storage) = self.value(storage) else {
            bail!("a tensor is of no storage");
        };
        let tensor = Tensor {
            storage: Rc::clone(storage),
            offset: self.count(offset)?,
            shape: self.counts(shape)?,
            strides: self.counts(strides)?,
        };
        ensure!(
            tensor.shape.len() == tensor.strides.len() && tensor.shape.len() <= MAX_RANK,
            "a tensor of {} dimensions has {} strides; at most {MAX_RANK} are known",
            tensor.shape.len(),
            tensor.strides.len()
        );
        Ok(tensor)
    }

    /// What a persistent id says: `("storage", class, key, device, elements)`.
    pub(super) fn storage(&self, id: Id) -> Result<Storage> {
        let Value::Tuple(parts) = self.value(id) else {
            bail!("a persistent id is no tuple");
        };
        let [kind, class, key, _device, len, view @ ..] = &parts[..] else {
            bail!("a persistent id has {} parts, not 5", parts.len());
        };
        let is_plain = matches!(self.value(*kind), Value::Text(kind) if &**kind == "storage")
            && view.iter().all(|part| *self.value(*part) == Value::None);
        let (true, Value::Global(Global::StorageOf(dtype)), Value::Text(key)) =
            (is_plain, self.value(*class), self.value(*key))
        else {
            bail!("a persistent id is not one of a storage");
        };
        ensure!(
            key.len() <= MAX_KEY,
            "a storage's name has {} bytes",
            key.len()
        );
        Ok(Storage {
            dtype: *dtype,
            key: key.to_string(),
            len: self.count(*len)?,
        })
    }

    /// An array's state: `(version, shape, type, column-major, bytes)`.
    pub(super) fn array_of(&self, state: Id) -> Result<Array> {
        let Value::Tuple(parts) = self.value(state) else {
            bail!("the state of an array is no tuple");
        };
        let [_, shape, _, column_major, data] = &parts[..] else {
            bail!("the state of an array has {} parts, not 5", parts.len());
        };
        let Value::Bytes(data) = *self.value(*data) else {
            bail!("the elements of an array are no bytes, or too few");
        };
        ensure!(
            *self.value(*column_major) == Value::Bool(false),
            "an array is stored columns first"
        );
        let shape = self.counts(*shape)?;
        Ok(Array { shape, data })
    }

    fn count(&self, id: Id) -> Result<usize> {
        match self.value(id) {
            Value::Int(int) if *int >= 0 => Ok(*int as usize),
            Value::Int(int) => bail!("{int} stands where a count should be"),
            _ => bail!("something that is no count stands where one should be"),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<usize>> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= MAX_RANK => {
                items.iter().map(|item| self.count(*item)).collect()
            }
            _ => bail!("dimensions are no tuple of at most {MAX_RANK}"),
        }
    }
}

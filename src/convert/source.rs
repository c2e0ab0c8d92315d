//! Files of weights as lists of tensors, each read when it is asked for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Metadata;

use super::onnx;
use super::torch_file::TorchFile;
use crate::bad_input;
use crate::checkpoint::{Dtype, HostTensor, Snapshot};

/// A safetensors header is a list of names and shapes; a larger one is none of
/// ours.
const MAX_HEADER: u64 = 8 << 20;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// A file of tensors.
pub struct Source {
    pub entries: Vec<Entry>,
    /// What else the file says of them, such as `arch`.
    pub notes: Vec<(String, String)>,
    data: Data,
}

enum Data {
    Torch(TorchFile),
    Safetensors {
        file: File,
        /// Offset and length of each entry's bytes.
        places: Vec<(u64, usize)>,
    },
    Onnx {
        file: File,
        /// The second file, if there is one.
        beside: Option<File>,
        /// Whether it is in that, offset and length of each entry's bytes.
        places: Vec<(bool, u64, usize)>,
    },
    Memory(Vec<HostTensor>),
}

impl Source {
    /// Opens a file of `torch.save` or of safetensors: its first bytes tell.
    ///
    /// # Errors
    /// [`bad_input!`] for a file that is neither, is cut short, lies about
    /// sizes, or names code. Memory is bounded by the file's list of tensors,
    /// which is bounded.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_any(path)
            .map_err(|error| bad_input!("cannot read weights from {}: {error:#}", path.display()))
    }

    fn open_any(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        ensure!(meta.is_file(), "it is no regular file");
        let mut first = [0; 9];
        let has_first = file.read_exact(&mut first).is_ok();
        ensure!(has_first, "it has only {} bytes", meta.len());
        file.rewind()?;
        // A safetensors file begins with its header's length, and the header
        // with a brace.
        match first {
            [_, _, _, _, _, _, _, _, b'{'] => Self::safetensors(file, meta.len()),
            [b'P', b'K', ..] | [0x80, ..] => {
                let (torch, entries, notes) = TorchFile::open(file, meta.len())?;
                Ok(Self {
                    entries,
                    notes,
                    data: Data::Torch(torch),
                })
            }
            // The version of ONNX's format, an integer.
            [0x08, ..] => Self::onnx(file, meta.len(), path),
            _ => bail!(
                "it is neither a file of torch.save (.pth, .pth.tar, .pt, .bin) nor of safetensors"
            ),
        }
    }

    fn safetensors(mut file: File, file_bytes: u64) -> Result<Self> {
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        ensure!(
            length <= MAX_HEADER && length <= file_bytes - 8,
            "its header says that it has {length} bytes; the file has {file_bytes}, and a header \
             at most {MAX_HEADER}"
        );
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        // Checks that offsets have no gaps and fit types and shapes.
        let header: Metadata =
            serde_json::from_slice(&header).context("its header is not one of safetensors")?;
        let data = header.data_len() as u64;
        ensure!(
            data.checked_add(8 + length) == Some(file_bytes),
            "its header describes {data} bytes after itself, the file has {} there",
            file_bytes - 8 - length
        );
        let mut entries = Vec::new();
        let mut places = Vec::new();
        for name in header.offset_keys() {
            let info = header.info(&name).context("a key of this header")?;
            let (start, end) = info.data_offsets;
            places.push((8 + length + start as u64, end - start));
            entries.push(Entry {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
            });
        }
        let notes = header.metadata().clone().unwrap_or_default();
        Ok(Self {
            entries,
            notes: notes.into_iter().collect(),
            data: Data::Safetensors { file, places },
        })
    }

    /// A model that we wrote.
    fn onnx(file: File, file_bytes: u64, path: &Path) -> Result<Self> {
        let list = onnx::list(file.try_clone()?, file_bytes)?;
        ensure!(
            !list.entries.is_empty(),
            "it is an ONNX model, but none of xla-moco's: its weights cannot be told from its \
             other constants"
        );
        let beside = path.with_file_name(onnx::DATA_FILE);
        let is_split = list.places.iter().any(|(is_beside, _, _)| *is_beside);
        let beside = match is_split {
            true => Some(File::open(&beside).with_context(|| beside.display().to_string())?),
            false => None,
        };
        Ok(Self {
            entries: list.entries,
            notes: list.notes,
            data: Data::Onnx {
                file,
                beside,
                places: list.places,
            },
        })
    }

    /// The tensors of a checkpoint of ours.
    pub fn of_snapshot(snapshot: Snapshot) -> Self {
        let tensors = snapshot.into_tensors();
        let entry = |tensor: &HostTensor| Entry {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        };
        Self {
            entries: tensors.iter().map(entry).collect(),
            notes: Vec::new(),
            data: Data::Memory(tensors),
        }
    }

    pub fn note(&self, key: &str) -> Option<&str> {
        let found = self.notes.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The elements of the entry `index`, dense, row-major, little-endian f32.
    /// What is f16 or bf16 becomes f32 exactly.
    ///
    /// # Errors
    /// [`bad_input!`] for another type, and for data that is not all there.
    pub fn read_f32(&mut self, index: usize) -> Result<Vec<u8>> {
        let Entry { name, dtype, .. } = self.entries[index].clone();
        let bytes = match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => self.read(index),
            _ => Err(anyhow::anyhow!(
                "it is {dtype:?}; weights are F32, F16 or BF16"
            )),
        };
        let bytes = bytes.map_err(|error| bad_input!("the tensor {name}: {error:#}"))?;
        let wide = |widen: fn([u8; 2]) -> f32| {
            let (pairs, _) = bytes.as_chunks::<2>();
            pairs
                .iter()
                .flat_map(|two| widen(*two).to_le_bytes())
                .collect()
        };
        Ok(match dtype {
            Dtype::F16 => wide(|two| half::f16::from_le_bytes(two).to_f32()),
            Dtype::BF16 => wide(|two| half::bf16::from_le_bytes(two).to_f32()),
            _ => bytes,
        })
    }

    fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        match &mut self.data {
            Data::Torch(file) => file.read(index),
            Data::Safetensors { file, places } => {
                let (start, bytes) = places[index];
                read_at(file, start, bytes)
            }
            Data::Onnx {
                file,
                beside,
                places,
            } => {
                let (is_beside, start, bytes) = places[index];
                let beside = beside.as_mut().filter(|_| is_beside);
                read_at(beside.unwrap_or(file), start, bytes)
            }
            Data::Memory(tensors) => Ok(std::mem::take(&mut tensors[index].data)),
        }
    }
}

/// So many bytes of a file; nothing is allocated for bytes that it has not.
fn read_at(file: &mut File, start: u64, bytes: usize) -> Result<Vec<u8>> {
    let has = file.metadata()?.len();
    let end = start.checked_add(bytes as u64);
    ensure!(
        end.is_some_and(|end| end <= has),
        "it should lie at {start}, {bytes} bytes long; the file has {has}"
    );
    file.seek(SeekFrom::Start(start))?;
    let mut data = vec![0; bytes];
    file.read_exact(&mut data).context("it is cut short")?;
    Ok(data)
}

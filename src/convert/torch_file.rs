//! Files of `torch.save`: of the zip kind (PyTorch 1.6 and later) and of the
//! older kind, one stream of pickles and elements.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::source::Entry;
use crate::pickle::{self, Id, Pickle, Storage, Tensor, Value};

/// Keys under which training scripts keep the state dict, most wanted first.
const STATE_DICTS: [&str; 4] = ["state_dict", "model", "teacher", "student"];

/// What each file of the older kind begins with, as a pickled integer.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Members of a zip file at most.
const MAX_MEMBERS: usize = 1 << 16;

/// All reads together may take so many times the file: tensors may share
/// storages, but not without end.
const MAX_READS: u64 = 4;

/// A file of `torch.save`, open.
pub struct TorchFile {
    container: Container,
    tensors: Vec<Tensor>,
    /// The storage that was read last.
    last: Option<(String, Vec<u8>)>,
    file_bytes: u64,
    bytes_read: u64,
}

enum Container {
    Zip {
        archive: Box<ZipArchive<BufReader<File>>>,
        prefix: String,
    },
    /// By a storage's key, where its elements begin and how many there are.
    Stream {
        file: File,
        places: BTreeMap<String, (u64, usize)>,
    },
}

/// A file, its tensors, and the texts and integers beside its state dict.
type Opened = (TorchFile, Vec<Entry>, Vec<(String, String)>);

impl TorchFile {
    /// # Errors
    /// What is damaged or refused. No element is read yet.
    pub fn open(mut file: File, file_bytes: u64) -> Result<Opened> {
        let mut first = [0; 2];
        file.read_exact(&mut first)?;
        file.rewind()?;
        let (container, pickle) = match &first {
            b"PK" => open_zip(file)?,
            _ => open_stream(file, file_bytes)?,
        };
        let (state, notes) = state_dict(&pickle)?;
        let mut entries = Vec::new();
        let mut tensors = Vec::new();
        for (name, id) in pickle.entries(state).context("no state dict")? {
            match pickle.value(id) {
                Value::Tensor(tensor) => {
                    check(tensor, file_bytes).with_context(|| format!("its tensor {name}"))?;
                    entries.push(Entry {
                        name: name.to_owned(),
                        dtype: tensor.storage.dtype,
                        shape: tensor.shape.clone(),
                    });
                    tensors.push((**tensor).clone());
                }
                _ => bail!("its state dict has {name}, which is no tensor"),
            }
        }
        let file = Self {
            container,
            tensors,
            last: None,
            file_bytes,
            bytes_read: 0,
        };
        Ok((file, entries, notes))
    }

    /// The elements of tensor `index`, dense and row-major, as the file has
    /// them.
    pub fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let tensor = self.tensors[index].clone();
        let key = &tensor.storage.key;
        let kept = self.last.take().filter(|(last, _)| last == key);
        let storage = match kept {
            Some((_, bytes)) => bytes,
            None => self.read_storage(&tensor.storage)?,
        };
        let dense = gather(&tensor, &storage);
        self.last = Some((key.clone(), storage));
        dense
    }

    fn read_storage(&mut self, storage: &Storage) -> Result<Vec<u8>> {
        let wanted = bytes_of(storage)?;
        self.bytes_read += wanted as u64;
        ensure!(
            self.bytes_read <= MAX_READS * self.file_bytes,
            "its tensors overlap so much that reading them takes over {MAX_READS} times the file"
        );
        match &mut self.container {
            Container::Zip { archive, prefix } => read_member(
                archive,
                &format!("{prefix}data/{}", storage.key),
                Some(wanted),
            ),
            Container::Stream { file, places } => {
                let (start, len) = *places
                    .get(&storage.key)
                    .with_context(|| format!("it has no storage {}", storage.key))?;
                ensure!(
                    len == storage.len,
                    "its storage {} has {len} elements, not {}",
                    storage.key,
                    storage.len
                );
                file.seek(SeekFrom::Start(start))?;
                let mut bytes = vec![0; wanted];
                file.read_exact(&mut bytes).context("it is cut short")?;
                Ok(bytes)
            }
        }
    }
}

fn open_zip(file: File) -> Result<(Container, Pickle)> {
    let archive = ZipArchive::new(BufReader::new(file));
    let mut archive = archive.context("it is no whole zip file")?;
    ensure!(
        archive.len() <= MAX_MEMBERS,
        "it has {} members; at most {MAX_MEMBERS} are expected",
        archive.len()
    );
    // A name that is no text is not the pickle's.
    let names = archive.file_names().filter_map(Result::ok);
    let is_root = |name: &String| name == "data.pkl" || name.ends_with("/data.pkl");
    let roots: Vec<String> = names.map(Cow::into_owned).filter(is_root).collect();
    let [root] = &roots[..] else {
        bail!(
            "a zip file of torch.save has one data.pkl; this has {}",
            roots.len()
        );
    };
    let prefix = root.trim_end_matches("data.pkl").to_owned();
    let pickled = read_member(&mut archive, root, None)?;
    let pickle = Pickle::read(&pickled)?;
    let order = format!("{prefix}byteorder");
    if archive.index_for_name(&order).is_some() {
        let order = read_member(&mut archive, &order, None)?;
        ensure!(order == b"little", "its byte order is not little-endian");
    }
    let container = Container::Zip {
        archive: Box::new(archive),
        prefix,
    };
    Ok((container, pickle))
}

/// A member whole, its checksum compared; of the size `wanted`, else at most a
/// pickle's. torch.save does not compress, so what is read is in the file.
fn read_member(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    wanted: Option<usize>,
) -> Result<Vec<u8>> {
    let member = archive
        .by_name(name)
        .with_context(|| format!("its member {name}"))?;
    ensure!(
        member.compression() == CompressionMethod::Stored
            && member.size() == member.compressed_size(),
        "its member {name} is compressed, which torch.save never does"
    );
    let size = member.size();
    let fits = match wanted {
        Some(wanted) => size == wanted as u64,
        None => size <= pickle::MAX_BYTES as u64,
    };
    let expected = wanted.map_or(format!("at most {}", pickle::MAX_BYTES), |n| n.to_string());
    ensure!(
        fits,
        "its member {name} says that it has {size} bytes; expected {expected}"
    );
    // As it comes, not as it says: the size may be a lie.
    let mut bytes = Vec::new();
    member
        .take(size)
        .read_to_end(&mut bytes)
        .with_context(|| format!("its member {name} is damaged"))?;
    ensure!(
        bytes.len() as u64 == size,
        "its member {name} is cut short: {} of {size} bytes are there",
        bytes.len()
    );
    Ok(bytes)
}

/// Magic number, protocol, the writer's system, the object and the keys of its
/// storages, a pickle each; then each storage: its length, 8 bytes, and its
/// elements.
fn open_stream(mut file: File, file_bytes: u64) -> Result<(Container, Pickle)> {
    let mut head = Vec::new();
    (&file)
        .take(pickle::MAX_BYTES as u64)
        .read_to_end(&mut head)?;
    let mut rest = &head[..];
    let mut next = || -> Result<Pickle> {
        let pickle = Pickle::read(rest)?;
        rest = &rest[pickle.bytes..];
        Ok(pickle)
    };
    let magic = next()?;
    ensure!(
        *magic.value(magic.root()) == Value::Long(MAGIC.as_slice().into()),
        "it is a pickle, but none of torch.save; save the state dict with torch.save"
    );
    let (_protocol, system) = (next()?, next()?);
    let little = system.entries(system.root()).is_some_and(|mut entries| {
        entries
            .any(|(key, value)| key == "little_endian" && *system.value(value) == Value::Bool(true))
    });
    ensure!(little, "its byte order is not little-endian");
    let object = next()?;
    let keys = next()?;
    let mut at = (head.len() - rest.len()) as u64;
    let storages: BTreeMap<&str, &Storage> = object
        .storages()
        .map(|storage| (storage.key.as_str(), storage))
        .collect();
    let Value::List(keys_found) = keys.value(keys.root()) else {
        bail!("it has no list of storages");
    };
    let mut places = BTreeMap::new();
    for key in keys_found {
        let Value::Text(key) = keys.value(*key) else {
            bail!("a storage's key is no text");
        };
        let storage = storages
            .get(&**key)
            .with_context(|| format!("its storage {key} belongs to no tensor"))?;
        file.seek(SeekFrom::Start(at))?;
        let mut len = [0; 8];
        file.read_exact(&mut len).context("it is cut short")?;
        ensure!(
            u64::from_le_bytes(len) == storage.len as u64,
            "its storage {key} has another length than its pickle says"
        );
        places.insert(key.to_string(), (at + 8, storage.len));
        let end = bytes_of(storage)
            .ok()
            .and_then(|bytes| at.checked_add(8 + bytes as u64));
        at = end
            .filter(|end| *end <= file_bytes)
            .with_context(|| format!("its storage {key} is cut short"))?;
    }
    Ok((Container::Stream { file, places }, object))
}

/// The dictionary of tensors, at the top or under one of the known keys, and
/// the notes beside it.
fn state_dict(pickle: &Pickle) -> Result<(Id, Vec<(String, String)>)> {
    let top = pickle.root();
    let entries = pickle.entries(top);
    let entries: Vec<(&str, Id)> = entries
        .context("it holds no dictionary; expected a state dict")?
        .collect();
    let is_tensor = |(_, id): &(&str, Id)| matches!(pickle.value(*id), Value::Tensor(_));
    if entries.iter().any(is_tensor) {
        return Ok((top, Vec::new()));
    }
    let found = STATE_DICTS.iter().find_map(|key| {
        let found = entries.iter().find(|(name, _)| name == key);
        found.filter(|(_, id)| matches!(pickle.value(*id), Value::Dict(_)))
    });
    let Some((_, state)) = found else {
        let keys = entries.iter().take(20).map(|(key, _)| *key);
        bail!(
            "it holds no state dict: expected tensors, or a dictionary under {}; found {}",
            STATE_DICTS.join(", "),
            keys.collect::<Vec<_>>().join(", ")
        );
    };
    let note = |(key, id): &(&str, Id)| match pickle.value(*id) {
        Value::Text(text) if text.len() <= 256 => Some(((*key).to_owned(), text.to_string())),
        Value::Int(int) => Some(((*key).to_owned(), int.to_string())),
        _ => None,
    };
    Ok((*state, entries.iter().filter_map(note).collect()))
}

fn bytes_of(storage: &Storage) -> Result<usize> {
    let bytes = storage.len.checked_mul(storage.dtype.bitsize() / 8);
    bytes.with_context(|| format!("its storage {} is larger than memory", storage.key))
}

/// The sizes that a pickle says fit its storage, and the file.
fn check(tensor: &Tensor, file_bytes: u64) -> Result<()> {
    let storage = bytes_of(&tensor.storage)?;
    ensure!(
        storage as u64 <= file_bytes,
        "its storage of {storage} bytes is larger than the file, {file_bytes}"
    );
    let count = tensor
        .shape
        .iter()
        .try_fold(1usize, |n, dim| n.checked_mul(*dim));
    let count = count.filter(|count| *count <= tensor.storage.len);
    let count = count.with_context(|| {
        format!(
            "{:?} has more elements than its storage, {}",
            tensor.shape, tensor.storage.len
        )
    })?;
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.offset, |at, (dim, stride)| {
            at.checked_add(dim.saturating_sub(1).checked_mul(*stride)?)
        });
    ensure!(
        count == 0 || last.is_some_and(|last| last < tensor.storage.len),
        "offset {}, shape {:?} and strides {:?} reach beyond its storage of {}",
        tensor.offset,
        tensor.shape,
        tensor.strides,
        tensor.storage.len
    );
    Ok(())
}

/// The view's elements out of its storage's bytes; [`check`] has passed.
fn gather(tensor: &Tensor, storage: &[u8]) -> Result<Vec<u8>> {
    let size = tensor.storage.dtype.bitsize() / 8;
    let count: usize = tensor.shape.iter().product();
    let mut expected = 1usize;
    let dims = tensor.shape.iter().zip(&tensor.strides).rev();
    let is_dense = dims.clone().all(|(dim, stride)| {
        let fits = *dim == 1 || *stride == expected;
        expected = expected.wrapping_mul(*dim);
        fits
    });
    let element = |at: usize, many: usize| {
        let bytes = storage.get(at * size..(at + many) * size);
        bytes.context("a view reaches beyond its storage")
    };
    if is_dense || count == 0 {
        return Ok(element(tensor.offset.min(tensor.storage.len), count)?.to_vec());
    }
    let mut dense = Vec::with_capacity(count * size);
    for index in 0..count {
        let mut rest = index;
        let mut at = tensor.offset;
        for (dim, stride) in dims.clone() {
            at += rest % dim * stride;
            rest /= dim;
        }
        dense.extend_from_slice(element(at, 1)?);
    }
    Ok(dense)
}

//! The tensors of a train state and their file, in the safetensors format.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

/// The safetensors format's own bound on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A tensor in host memory: dense, row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Full name, as `momentum_encoder.blocks.0.attn.qkv.weight`.
    pub name: String,
    pub dtype: Dtype,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements' bytes: product of `shape` times the element size.
    pub data: Vec<u8>,
}

/// The whole state after `step` steps, in the one order that files have.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    step: u64,
    tensors: Vec<HostTensor>,
}

impl Snapshot {
    /// Checks and sorts the tensors: wider types first (so that each tensor
    /// is aligned in the file), then by name. The order given does not matter.
    ///
    /// # Errors
    /// A name used twice or reserved, or data whose length is not that of the
    /// shape.
    pub fn new(step: u64, mut tensors: Vec<HostTensor>) -> Result<Self> {
        let mut names = BTreeSet::new();
        for t in &tensors {
            let bytes = byte_size(t.dtype, &t.shape);
            ensure!(
                bytes == Some(t.data.len()),
                "tensor {}: {}{:?} takes {bytes:?} bytes, its data has {}",
                t.name,
                t.dtype,
                t.shape,
                t.data.len()
            );
            ensure!(names.insert(&t.name), "two tensors are named {}", t.name);
            ensure!(
                t.name != "__metadata__",
                "the name {} is reserved by the file format",
                t.name
            );
        }
        tensors.sort_by(|a, b| (b.dtype, &a.name).cmp(&(a.dtype, &b.name)));
        Ok(Snapshot { step, tensors })
    }

    /// The number of train steps that made this state.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The tensors in file order.
    pub fn tensors(&self) -> &[HostTensor] {
        &self.tensors
    }

    /// Gives the tensors away, in file order.
    pub fn into_tensors(self) -> Vec<HostTensor> {
        self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// Writes the state file; returns its size and SHA-256 (lower-case hex).
    pub fn write(&self, out: impl Write) -> io::Result<(u64, String)> {
        let mut out = Hashing::new(BufWriter::with_capacity(1 << 20, out));
        let header = self.header()?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in &self.tensors {
            out.write_all(&tensor.data)?;
        }
        out.flush()?;
        Ok(out.finish())
    }

    /// The size of the state file in bytes.
    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        let data: usize = self.tensors.iter().map(|t| t.data.len()).sum();
        Ok((8 + self.header()?.len() + data) as u64)
    }

    fn header(&self) -> io::Result<Vec<u8>> {
        let mut end = 0;
        let infos = self.tensors.iter().map(|t| {
            let start = end;
            end += t.data.len();
            let info = TensorInfo {
                dtype: t.dtype,
                shape: t.shape.clone(),
                data_offsets: (start, end),
            };
            (t.name.clone(), info)
        });
        // The crate writes the entries in the order given.
        let header = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
        let mut header = serde_json::to_vec(&header)?;
        // Spaces, as the format asks, so that the data begins aligned.
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(header)
    }

    /// Reads a state file of `file_bytes` bytes; returns its SHA-256 too, which
    /// the caller compares. Nothing larger than the file is allocated.
    ///
    /// # Errors
    /// A header that is cut short, malformed or does not fit the file.
    pub(super) fn read(step: u64, file: File, file_bytes: u64) -> Result<(Self, String)> {
        let mut input = Hashing::new(BufReader::with_capacity(1 << 20, file));
        let header_bytes = u64::from_le_bytes(read_exactly(&mut input, 8)?[..].try_into()?);
        if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes - 8 {
            bail!("its header says {header_bytes} bytes, the file has {file_bytes}");
        }
        let header = read_exactly(&mut input, header_bytes as usize)?;
        // Checks that the offsets are without gaps or overlap and that each
        // agrees with type and shape.
        let header: Metadata =
            serde_json::from_slice(&header).context("its header is not one of safetensors")?;
        let expected = (8 + header_bytes).saturating_add(header.data_len() as u64);
        if expected != file_bytes {
            bail!("its header describes {expected} bytes, the file has {file_bytes}");
        }
        let mut tensors = Vec::new();
        for name in header.offset_keys() {
            let info = header.info(&name).expect("a key of this header");
            let data = read_exactly(&mut input, info.data_offsets.1 - info.data_offsets.0)?;
            tensors.push(HostTensor {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                data,
            });
        }
        let (_, sha256) = input.finish();
        Ok((Snapshot::new(step, tensors)?, sha256))
    }
}

/// Reads `reader` to its end; returns its size and SHA-256.
pub(super) fn digest(reader: impl Read) -> io::Result<(u64, String)> {
    let mut input = Hashing::new(reader);
    let mut buffer = vec![0; 1 << 20];
    while input.read(&mut buffer)? > 0 {}
    Ok(input.finish())
}

fn byte_size(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    (bits % 8 == 0).then_some(bits / 8)
}

fn read_exactly(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; bytes];
    input.read_exact(&mut data).context("it is cut short")?;
    Ok(data)
}

/// Counts and hashes what passes through.
struct Hashing<T> {
    inner: T,
    bytes: u64,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Hashing {
            inner,
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    fn pass(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.hash.update(data);
    }

    fn finish(self) -> (u64, String) {
        (self.bytes, crate::hash::hex(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(data)?;
        self.pass(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.pass(&buffer[..n]);
        Ok(n)
    }
}

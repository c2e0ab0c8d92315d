//! MATLAB's level 5 files (MathWorks, "MAT-File Format"), as far as data sets
//! need them: numbers, texts, and structures of these, compressed or not.
//!
//! The whole file is in memory and small; what it unpacks to is bounded before
//! it is unpacked, and every count is held against the bytes that are left.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::ZlibDecoder;

/// The largest file that is read.
pub const MAX_BYTES: u64 = 4 << 20;
/// What all of its parts may unpack to: numbers take up to 8 times as much.
const MAX_UNPACKED: u64 = 4 << 20;
const HEADER: usize = 128;
/// Structures in structures at most.
const MAX_DEPTH: usize = 4;

const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;

/// A variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Variable {
    /// Of any numeric class, columns first.
    Numbers(Vec<f64>),
    Text(String),
    /// Names of the fields, and the elements' values in their order.
    Struct(Vec<String>, Vec<Vec<Variable>>),
    /// Cells, objects, sparse matrices.
    Other,
}

impl Variable {
    /// Whole numbers from 0 on.
    ///
    /// # Errors
    /// If it is something else.
    pub fn counts(&self) -> Result<Vec<usize>> {
        let Self::Numbers(numbers) = self else {
            bail!("expected numbers");
        };
        let count = |&x: &f64| {
            let fits = x >= 0.0 && x <= f64::from(u32::MAX) && x.fract() == 0.0;
            fits.then_some(x as usize)
                .with_context(|| format!("expected whole numbers, found {x}"))
        };
        numbers.iter().map(count).collect()
    }
}

/// All variables of a file, by name.
///
/// # Errors
/// If it is no such file, is broken, or unpacks to too much.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Variable>> {
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "it has {} bytes; at most {MAX_BYTES} are read",
        bytes.len()
    );
    let header = bytes.get(..HEADER);
    let header = header.context("it is shorter than the header of a MATLAB file")?;
    ensure!(
        header[124..] == [0, 1, b'I', b'M'],
        "expected a MATLAB file of level 5, little-endian (MATLAB's `save -v6` or `-v7`)"
    );
    let mut variables = BTreeMap::new();
    let mut left = MAX_UNPACKED;
    let mut input = Input(&bytes[HEADER..]);
    while !input.0.is_empty() {
        let (kind, data) = input.element()?;
        let unpacked;
        let (kind, data) = match kind {
            COMPRESSED => {
                unpacked = unpack(data, &mut left)?;
                Input(&unpacked).element()?
            }
            _ => (kind, data),
        };
        if kind == MATRIX {
            let (name, variable) = matrix(data, 0)?;
            variables.insert(name, variable);
        }
    }
    Ok(variables)
}

fn unpack(data: &[u8], left: &mut u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut zlib = ZlibDecoder::new(data).take(*left + 1);
    zlib.read_to_end(&mut bytes)
        .context("a compressed part is broken")?;
    *left = left
        .checked_sub(bytes.len() as u64)
        .with_context(|| format!("it unpacks to more than {MAX_UNPACKED} bytes"))?;
    Ok(bytes)
}

/// What is left of some elements.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).with_context(|| {
            let left = self.0.len();
            format!("{count} bytes should follow, {left} do: it is cut short")
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    /// The next element's type and data.
    fn element(&mut self) -> Result<(u32, &'a [u8])> {
        let tag = self.u32()?;
        // Up to 4 bytes stand in the tag itself.
        if tag >> 16 != 0 {
            let data = self.take(4)?;
            let data = data.get(..(tag >> 16) as usize);
            let data = data.context("a small element has over 4 bytes")?;
            return Ok((tag & 0xffff, data));
        }
        let len = self.u32()? as usize;
        let data = self.take(len)?;
        if tag != COMPRESSED {
            let padding = len.next_multiple_of(8) - len;
            self.take(padding.min(self.0.len()))?;
        }
        Ok((tag, data))
    }

    fn numbers(&mut self) -> Result<Vec<f64>> {
        let (kind, data) = self.element()?;
        macro_rules! numbers {
            ($type:ty) => {{
                let (all, rest) = data.as_chunks::<{ size_of::<$type>() }>();
                ensure!(rest.is_empty(), "half a number is left");
                all.iter()
                    .map(|x| <$type>::from_le_bytes(*x) as f64)
                    .collect()
            }};
        }
        Ok(match kind {
            1 => numbers!(i8),
            2 | 16 => numbers!(u8),
            3 => numbers!(i16),
            4 | 17 => numbers!(u16),
            5 => numbers!(i32),
            6 => numbers!(u32),
            7 => numbers!(f32),
            9 => numbers!(f64),
            12 => numbers!(i64),
            13 => numbers!(u64),
            _ => bail!("it has elements of the unknown type {kind}"),
        })
    }

    fn text(&mut self) -> Result<String> {
        let codes = self.numbers()?;
        let character = |code: f64| char::from_u32(code as u32).unwrap_or('?');
        Ok(codes.into_iter().map(character).collect())
    }
}

/// A matrix's name and content.
fn matrix(data: &[u8], depth: usize) -> Result<(String, Variable)> {
    // An empty field is an element without anything.
    if data.is_empty() {
        return Ok((String::new(), Variable::Numbers(vec![])));
    }
    ensure!(depth < MAX_DEPTH, "it nests over {MAX_DEPTH} structures");
    let mut input = Input(data);
    let (_, flags) = input.element()?;
    let class = *flags.first().context("a matrix has no class")?;
    let dims = input.numbers()?;
    let count = dims.iter().try_fold(1usize, |count, &dim| {
        let dim = (dim >= 0.0).then_some(dim as usize)?;
        count.checked_mul(dim).filter(|&count| count <= data.len())
    });
    let count = count.with_context(|| {
        format!(
            "a matrix of {dims:?} elements cannot be in {} bytes",
            data.len()
        )
    })?;
    let name = input.text()?;
    let variable = match class {
        2 => structure(&mut input, count, depth)?,
        4 => Variable::Text(input.text()?),
        6..=15 => {
            let numbers = match count {
                0 => vec![],
                _ => input.numbers()?,
            };
            ensure!(
                numbers.len() == count,
                "{name} has {} numbers; its dimensions {dims:?} say {count}",
                numbers.len()
            );
            Variable::Numbers(numbers)
        }
        _ => Variable::Other,
    };
    Ok((name, variable))
}

fn structure(input: &mut Input, count: usize, depth: usize) -> Result<Variable> {
    let width = input.numbers()?.first().copied().unwrap_or(0.0) as usize;
    let (_, names) = input.element()?;
    ensure!(
        width > 0 && names.len().is_multiple_of(width),
        "the names of a structure's fields are broken"
    );
    let name = |bytes: &[u8]| {
        let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let fields: Vec<String> = names.chunks(width).map(name).collect();
    let mut rows = Vec::new();
    // Without fields, elements take no bytes.
    for _ in 0..if fields.is_empty() { 0 } else { count } {
        let mut row = Vec::new();
        for _ in &fields {
            let (kind, data) = input.element()?;
            ensure!(kind == MATRIX, "a field is no matrix");
            row.push(matrix(data, depth + 1)?.1);
        }
        rows.push(row);
    }
    Ok(Variable::Struct(fields, rows))
}

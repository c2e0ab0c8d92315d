//! The stack machine itself.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};

use super::{Allowed, Extent, Id, Value};

/// Byte strings up to this length are texts where they are UTF-8: Python 2
/// made no difference.
const MAX_TEXT: usize = 256;

pub struct Machine<'a> {
    input: &'a [u8],
    allowed: &'a Allowed,
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<u32>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub fn new(input: &'a [u8], allowed: &'a Allowed) -> Self {
        Self {
            input,
            allowed,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Runs to the opcode that ends a pickle: its value.
    pub fn run(&mut self) -> Result<Id> {
        for _ in 0..self.allowed.opcodes {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        let Allowed { what, opcodes, .. } = self.allowed;
        bail!("it has over {opcodes} opcodes, more than any {what} of ours")
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // PROTO, FRAME: nothing to do.
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len() as u32),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()));
            }
            b'K' => {
                let int = self.byte()?;
                self.push(Value::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()));
            }
            0x8a => {
                let count = self.byte()?.into();
                let long = long(self.take(count)?);
                self.push(long);
            }
            b'G' => {
                let float = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(float));
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'U' | b'C' => self.bytes(1)?,
            b'T' | b'B' => self.bytes(4)?,
            0x8e => self.bytes(8)?,
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)?;
            }
            b'h' => {
                let index = self.byte()?.into();
                self.recall(index)?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'q' => {
                let index = self.byte()?.into();
                self.memo.insert(index, self.top()?);
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memo.insert(index, self.top()?);
            }
            0x94 => {
                let index = self.memo.len() as u32;
                self.memo.insert(index, self.top()?);
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(self.allowed.global(&module, &name)?));
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let (Value::Text(module), Value::Text(name)) =
                    (self.value(parts[0]), self.value(parts[1]))
                else {
                    bail!("a global's name is no text");
                };
                let global = self.allowed.global(module, name)?;
                self.push(Value::Global(global));
            }
            // REDUCE, NEWOBJ: a callable and its arguments.
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                self.call(parts[0], parts[1])?;
            }
            // BUILD: a state on an object; of what is built here, only arrays
            // have one.
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match self.value(object) {
                    Value::Opaque | Value::Dict(_) => {}
                    Value::Array(_) => {
                        let array = Value::Array(Box::new(self.array_of(state)?));
                        self.values[object.0 as usize] = array;
                    }
                    _ => bail!("it sets the state of something that has none"),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(Rc::new(storage)));
            }
            _ => bail!(
                "it has the opcode 0x{opcode:02x} ({:?}), which no {} needs",
                char::from(opcode),
                self.allowed.what
            ),
        }
        Ok(())
    }

    fn append(&mut self, new: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list.0 as usize] {
            Value::List(items) => items.extend(new),
            _ => bail!("it appends to something that is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let pairs = pairs(items)?;
        match &mut self.values[dict.0 as usize] {
            Value::Dict(entries) => entries.extend(pairs),
            _ => bail!("it sets items of something that is no dictionary"),
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let found = self.memo.get(&index);
        let found = *found.with_context(|| format!("it recalls {index}, which it never noted"))?;
        self.stack.push(found);
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<()> {
        let text = std::str::from_utf8(self.counted(width)?).context("a text is not UTF-8")?;
        let text = Value::Text(text.into());
        self.push(text);
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Result<()> {
        let bytes = self.counted(width)?;
        let len = bytes.len();
        let text = std::str::from_utf8(bytes).ok();
        let value = match text.filter(|_| len <= MAX_TEXT) {
            Some(text) => Value::Text(text.into()),
            None => Value::Bytes(Extent {
                at: self.at - len,
                len,
            }),
        };
        self.push(value);
        Ok(())
    }

    /// So many bytes as the next `width` bytes say.
    fn counted(&mut self, width: usize) -> Result<&[u8]> {
        let mut count = [0; 8];
        count[..width].copy_from_slice(self.take(width)?);
        let count = usize::try_from(u64::from_le_bytes(count))?;
        self.take(count)
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.input[self.at..];
        let end = rest.iter().take(256).position(|byte| *byte == b'\n');
        let line = &rest[..end.context("a name has no end")?];
        self.at += line.len() + 1;
        Ok(std::str::from_utf8(line)
            .context("a name is not UTF-8")?
            .to_owned())
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.input.get(self.at..end));
        let taken = taken.with_context(|| {
            let left = self.input.len() - self.at;
            format!("{count} bytes should follow, {left} do: it is cut short")
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    pub(super) fn push(&mut self, value: Value) {
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.stack.push(id);
    }

    pub(super) fn push_again(&mut self, id: Id) {
        self.stack.push(id);
    }

    /// Values above the last mark are as if there were none below.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |mark| *mark as usize)
    }

    fn top(&self) -> Result<Id> {
        ensure!(self.stack.len() > self.floor(), "its stack is empty");
        self.stack.last().copied().context("its stack is empty")
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let start = self.stack.len().checked_sub(count);
        let start = start.filter(|start| *start >= self.floor());
        Ok(self.stack.split_off(start.context("its stack is empty")?))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("it has no mark")? as usize;
        Ok(self.stack.split_off(mark))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    ensure!(rest.is_empty(), "a key of a dictionary has no value");
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

/// An integer from little-endian two's complement.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.into());
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

//! Named values: options that we give to a plugin, attributes that it gives.

use super::table::{
    NAMED_BOOL, NAMED_FLOAT, NAMED_INT64, NAMED_INT64_LIST, NAMED_STRING, NamedValue, Ptr,
};

/// The value of a client or topology option, or of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Text(String),
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Bool(bool),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Int(value) => value.fmt(f),
            // A list of numbers is how versions are given: 1.20.0.
            Value::Ints(values) => {
                let parts: Vec<String> = values.iter().map(i64::to_string).collect();
                f.write_str(&parts.join("."))
            }
            Value::Float(value) => value.fmt(f),
            Value::Bool(value) => value.fmt(f),
        }
    }
}

/// The C form of options, which points into them.
pub fn named(options: &[(String, Value)]) -> Vec<NamedValue> {
    options
        .iter()
        .map(|(name, value)| {
            let (kind, bytes, value_size) = match value {
                Value::Text(text) => (NAMED_STRING, address(text.as_ptr()), text.len()),
                Value::Int(value) => (NAMED_INT64, value.to_ne_bytes(), 1),
                Value::Ints(values) => (NAMED_INT64_LIST, address(values.as_ptr()), values.len()),
                Value::Float(value) => {
                    let mut bytes = [0; 8];
                    bytes[..4].copy_from_slice(&value.to_ne_bytes());
                    (NAMED_FLOAT, bytes, 1)
                }
                Value::Bool(value) => (NAMED_BOOL, [u8::from(*value), 0, 0, 0, 0, 0, 0, 0], 1),
            };
            NamedValue {
                struct_size: size_of::<NamedValue>(),
                extension_start: std::ptr::null_mut(),
                name: name.as_ptr().cast(),
                name_size: name.len(),
                kind,
                pad: 0,
                value: bytes,
                value_size,
            }
        })
        .collect()
}

fn address<T>(pointer: *const T) -> [u8; 8] {
    (pointer.expose_provenance() as u64).to_ne_bytes()
}

/// Copies a plugin's named values; those of an unknown kind are left out.
///
/// # Safety
/// `start` is null or points to `count` named values, alive with all that
/// they point to.
pub unsafe fn read_named(start: *const NamedValue, count: usize) -> Vec<(String, Value)> {
    // SAFETY: promised by the caller.
    let values = unsafe { super::slice(start, count) };
    values
        .iter()
        .filter_map(|named| {
            let pointer: Ptr =
                std::ptr::with_exposed_provenance_mut(u64::from_ne_bytes(named.value) as usize);
            let [a, b, c, d, ..] = named.value;
            let value = match named.kind {
                // SAFETY: the kind says what the union holds.
                NAMED_STRING => {
                    Value::Text(unsafe { super::text(pointer.cast(), named.value_size) })
                }
                NAMED_INT64 => Value::Int(i64::from_ne_bytes(named.value)),
                // SAFETY: as above.
                NAMED_INT64_LIST => Value::Ints(
                    unsafe { super::slice(pointer.cast::<i64>(), named.value_size) }.to_vec(),
                ),
                NAMED_FLOAT => Value::Float(f32::from_ne_bytes([a, b, c, d])),
                NAMED_BOOL => Value::Bool(a != 0),
                _ => return None,
            };
            // SAFETY: promised by the caller.
            Some((unsafe { super::text(named.name, named.name_size) }, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_c_form() {
        let options = vec![
            ("path".to_owned(), Value::Text("a b".into())),
            ("count".to_owned(), Value::Int(-7)),
            ("version".to_owned(), Value::Ints(vec![1, 20, 0])),
            ("fraction".to_owned(), Value::Float(0.75)),
            ("on".to_owned(), Value::Bool(true)),
        ];
        let c_form = named(&options);
        // SAFETY: `options` outlives the call.
        let read = unsafe { read_named(c_form.as_ptr(), c_form.len()) };
        assert_eq!(read, options);
        assert_eq!(read[2].1.to_string(), "1.20.0");
    }
}

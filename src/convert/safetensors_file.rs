//! Writing safetensors files with metadata, to equal bytes for equal tensors.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, json};

use crate::checkpoint::{HostTensor, atomic};

/// Writes tensors in the order given, with notes as metadata; `format` "pt" is
/// one of them, which some readers ask for.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, tensors: &[HostTensor], notes: &[(&str, String)]) -> Result<()> {
    let mut header = Map::new();
    let mut metadata = json!({"format": "pt"});
    for (key, value) in notes {
        metadata[*key] = value.as_str().into();
    }
    header.insert("__metadata__".to_owned(), metadata);
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.data.len();
        let entry = json!({
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    // Spaces, as the format asks, so that the data begins aligned.
    header.resize(header.len().next_multiple_of(8), b' ');
    atomic::replace(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors
            .iter()
            .try_for_each(|tensor| file.write_all(&tensor.data))
    })
}

//! Features as a Parquet file: a row for each picture with `name`, `label` and
//! `class` (null where there is none) and the list `features`.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::Table;

const SCHEMA: &str = "message features {
  required binary name (STRING);
  optional int32 label;
  optional binary class (STRING);
  required group features (LIST) { repeated group list { required float element; } }
}";

/// Rows that are laid out together, of so many numbers.
const GROUP_NUMBERS: usize = 1 << 24;

/// `notes` become the file's metadata.
///
/// # Errors
/// Those of the file system.
pub(super) fn write(
    file: &mut (impl Write + Send),
    table: &Table,
    classes: &[String],
    notes: &[(&str, String)],
) -> Result<()> {
    let note = |(key, value): &(&str, String)| KeyValue::new((*key).to_owned(), value.clone());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        // Hardly two features are equal.
        .set_column_dictionary_enabled("features.list.element".into(), false)
        .set_key_value_metadata(Some(notes.iter().map(note).collect()))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let rows = (GROUP_NUMBERS / table.dim.max(1)).max(1);
    let mut from = 0;
    while from < table.names.len() {
        let upto = (from + rows).min(table.names.len());
        let mut group = writer.next_row_group()?;
        write_group(&mut group, table, classes, from..upto)?;
        group.close()?;
        from = upto;
    }
    writer.close()?;
    Ok(())
}

fn write_group<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<W>,
    table: &Table,
    classes: &[String],
    rows: std::ops::Range<usize>,
) -> Result<()> {
    let labels = &table.labels[rows.clone()];
    // 1 where there is a label.
    let given: Vec<i16> = labels.iter().map(|label| i16::from(*label >= 0)).collect();
    let labelled = || labels.iter().filter(|label| **label >= 0);
    let mut at = 0;
    while let Some(mut column) = group.next_column()? {
        match at {
            0 => {
                let names = table.names[rows.clone()].iter();
                let names: Vec<ByteArray> = names.map(|name| name.as_str().into()).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&names, None, None)?;
            }
            1 => {
                let labels: Vec<i32> = labelled().copied().collect();
                column
                    .typed::<Int32Type>()
                    .write_batch(&labels, Some(&given), None)?;
            }
            2 => {
                let name = |label: &i32| classes.get(*label as usize).map_or("", String::as_str);
                let names: Vec<ByteArray> = labelled().map(|label| name(label).into()).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&names, Some(&given), None)?;
            }
            _ => {
                let bytes = &table.features[4 * table.dim * rows.start..4 * table.dim * rows.end];
                let words = bytes.as_chunks().0.iter();
                let values: Vec<f32> = words.map(|word| f32::from_le_bytes(*word)).collect();
                // A list begins at its first element.
                let begins: Vec<i16> = (0..values.len())
                    .map(|i| i16::from(i % table.dim != 0))
                    .collect();
                let present = vec![1; values.len()];
                column
                    .typed::<FloatType>()
                    .write_batch(&values, Some(&present), Some(&begins))?;
            }
        }
        column.close()?;
        at += 1;
    }
    Ok(())
}

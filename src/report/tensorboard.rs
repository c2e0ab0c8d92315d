//! TensorBoard event files.
//!
//! A file is a sequence of records: the length of the data (u64), the masked
//! CRC-32C of those eight bytes, the data, its masked CRC-32C; all
//! little-endian (`tensorflow/core/lib/io/record_writer.h`). The data is an
//! `Event` message (`tensorflow/core/util/event.proto`); the messages below
//! have the fields that we write, with the numbers of the public schema.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use prost::Message;

use super::metrics::Record;
use crate::checkpoint::{RunDir, host_name};

/// Writes the event file of one process.
pub struct TensorBoard {
    file: File,
    path: PathBuf,
}

impl TensorBoard {
    /// Starts a new file in the run's `tensorboard/`. TensorBoard merges the
    /// files of a folder; after a resume the new file's first record tells it
    /// to forget the steps after `resume_step`.
    pub fn create(run: &RunDir, resume_step: Option<u64>) -> Result<Self> {
        let folder = run.tensorboard_dir();
        let (file, path) = create_new(&folder)
            .with_context(|| format!("cannot make an event file in {}", folder.display()))?;
        let mut board = TensorBoard { file, path };
        board.write(0, What::FileVersion("brain.Event:2".into()))?;
        if let Some(step) = resume_step {
            let status = SessionStatus::Start as i32;
            board.write(step + 1, What::SessionLog(SessionLog { status }))?;
        }
        Ok(board)
    }

    /// Writes all values of a step as one record, each under its key.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let values = record.scalars().iter().map(|(key, value)| SummaryValue {
            tag: key.clone(),
            content: Some(Content::SimpleValue(*value)),
            metadata: None,
        });
        let summary = Summary {
            value: values.collect(),
        };
        self.write(record.step(), What::Summary(summary))
    }

    /// Writes a text, in Markdown, as the resolved config.
    pub fn text(&mut self, step: u64, tag: &str, markdown: &str) -> Result<()> {
        let value = SummaryValue {
            tag: tag.into(),
            content: Some(Content::Tensor(TensorProto {
                dtype: DT_STRING,
                string_val: vec![markdown.as_bytes().to_vec()],
            })),
            metadata: Some(SummaryMetadata {
                plugin_data: Some(PluginData {
                    plugin_name: "text".into(),
                }),
                data_class: DATA_CLASS_TENSOR,
            }),
        };
        self.write(step, What::Summary(Summary { value: vec![value] }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            wall_time: now.map_or(0.0, |d| d.as_secs_f64()),
            step: step as i64,
            what: Some(what),
        };
        // One call, so that a killed process leaves whole records but the last.
        self.file
            .write_all(&frame(&event.encode_to_vec()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// `events.out.tfevents.SECONDS.HOST.PID.COUNT`: TensorBoard looks for
/// `tfevents` and reads files in the order of their names.
fn create_new(folder: &Path) -> std::io::Result<(File, PathBuf)> {
    fs::create_dir_all(folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |d| d.as_secs());
    let (host, pid) = (host_name(), std::process::id());
    let mut count = 0;
    loop {
        let path = folder.join(format!(
            "events.out.tfevents.{seconds:010}.{host}.{pid}.{count}"
        ));
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => count += 1,
            created => return Ok((created?, path)),
        }
    }
}

fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// A CRC of data that contains CRCs is weak; so stored ones are rotated and
/// shifted (`tensorflow/core/lib/hash/crc32c.h`).
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

// TensorFlow's DataType and DataClass.
const DT_STRING: i32 = 7;
const DATA_CLASS_TENSOR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum SessionStatus {
    Unspecified = 0,
    Start = 1,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Content", tags = "2, 8")]
    content: Option<Content>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<SummaryMetadata>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "8")]
    Tensor(TensorProto),
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
    #[prost(int32, tag = "4")]
    data_class: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit from the polynomial: independent of the crate's tables.
    fn slow_crc32c(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |mut crc, &byte| {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                let low = crc & 1;
                crc = (crc >> 1) ^ if low == 1 { 0x82f6_3b78 } else { 0 };
            }
            crc
        })
    }

    #[test]
    fn crc_is_castagnoli_and_masked() {
        // RFC 3720 B.4.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(slow_crc32c(b"123456789"), 0xe306_9283);
        // ((crc >> 15) | (crc << 17)) + 0xa282ead8, by hand for 0xe3069283:
        // 0x0001c60d | 0x25060000 = 0x2507c60d, + 0xa282ead8 = 0xc78ab0e5.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    /// A field of a protobuf message: number, wire type, content. Varints
    /// come as eight bytes, little-endian.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let content = match key & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                wire => {
                    let length = match wire {
                        1 => 8,
                        2 => varint(&mut bytes) as usize,
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    content.to_vec()
                }
            };
            found.push((key >> 3, key & 7, content));
        }
        found
    }

    /// The data of each record, its CRCs checked.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let masked = |data: &[u8]| {
            let crc = slow_crc32c(data).rotate_right(15);
            crc.wrapping_add(0xa282_ead8).to_le_bytes()
        };
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked(&file[..8]));
            assert_eq!(
                file[12 + length..16 + length],
                masked(&file[12..12 + length])
            );
            found.push(file[12..12 + length].to_vec());
            file = &file[16 + length..];
        }
        found
    }

    #[test]
    fn files_read_back_by_an_independent_reader() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let mut board = TensorBoard::create(&run, Some(41)).unwrap();
        let record = Record::new(42, 0.5).f32("loss", 5.25).f32("bad", f32::NAN);
        board.record(&record).unwrap();
        board.text(42, "config", "`{}`").unwrap();
        let name = board.path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");

        let events: Vec<_> = records(&fs::read(&board.path).unwrap())
            .iter()
            .map(|event| fields(event))
            .collect();
        assert_eq!(events.len(), 4);
        let step = |i: usize| {
            let field = events[i].iter().find(|f| f.0 == 2);
            field.map(|f| u64::from_le_bytes(f.2[..].try_into().unwrap()))
        };
        assert_eq!(
            events[0].last().unwrap(),
            &(3, 2, b"brain.Event:2".to_vec())
        );
        // SessionLog START at the first step that is written again.
        assert_eq!(step(1), Some(42));
        let session = events[1].last().unwrap();
        assert_eq!((session.0, fields(&session.2)[0].2[0]), (7, 1));

        assert_eq!(step(2), Some(42));
        let summary = &events[2].last().unwrap().2;
        let values: Vec<(String, f32)> = fields(summary)
            .iter()
            .map(|(number, _, value)| {
                assert_eq!(*number, 1);
                let value = fields(value);
                let tag = String::from_utf8(value[0].2.clone()).unwrap();
                assert_eq!(value[1].0, 2);
                (tag, f32::from_le_bytes(value[1].2[..].try_into().unwrap()))
            })
            .collect();
        assert_eq!(values[0], ("epoch".into(), 0.5));
        assert_eq!(values[1], ("loss".into(), 5.25));
        assert!(values[2].1.is_nan());
    }

    #[test]
    fn each_process_and_each_start_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let first = TensorBoard::create(&run, None).unwrap();
        let second = TensorBoard::create(&run, Some(7)).unwrap();
        assert!(
            first.path < second.path,
            "{:?} {:?}",
            first.path,
            second.path
        );
    }
}

//! The protobuf messages that a compilation takes, by hand: the fields that
//! we set, with the numbers of `xla/pjrt/proto/compile_options.proto`.

use std::collections::BTreeMap;

use prost::Message;

/// How to compile a program.
#[derive(Clone, PartialEq, Debug)]
pub struct CompileOptions {
    /// Devices that one copy of the program is partitioned over; the program
    /// says the same in `mhlo.num_partitions`.
    pub num_partitions: usize,
    /// XLA options by their flag name, such as `xla_dump_to`. They override
    /// single options and leave the plugin's other defaults alone.
    pub env_overrides: Vec<(String, OptionValue)>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions {
            num_partitions: 1,
            env_overrides: Vec::new(),
        }
    }
}

/// Value of an XLA option.
#[derive(Clone, PartialEq, Debug)]
pub enum OptionValue {
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl CompileOptions {
    /// The serialised `CompileOptionsProto`; equal options give equal bytes.
    /// `devices` are the ids of those that run the program, by its partitions;
    /// none: as the plugin likes, for devices that are not there.
    pub(super) fn encode(&self, devices: &[i64]) -> Vec<u8> {
        let overrides = self.env_overrides.iter().map(|(name, value)| {
            let value = match value.clone() {
                OptionValue::Text(text) => option_override::Value::Text(text),
                OptionValue::Bool(on) => option_override::Value::Bool(on),
                OptionValue::Int(number) => option_override::Value::Int(number),
                OptionValue::Float(number) => option_override::Value::Float(number),
            };
            (name.clone(), OptionOverrideProto { value: Some(value) })
        });
        CompileOptionsProto {
            executable_build_options: Some(ExecutableBuildOptionsProto {
                // Not bound to one device; 0 would be device 0.
                device_ordinal: -1,
                num_replicas: 1,
                num_partitions: self.num_partitions as i64,
                use_spmd_partitioning: true,
                device_assignment: DeviceAssignmentProto::of(devices),
                use_shardy_partitioner: true,
            }),
            env_option_overrides: overrides.collect(),
        }
        .encode_to_vec()
    }
}

#[derive(Clone, PartialEq, Message)]
struct CompileOptionsProto {
    #[prost(message, optional, tag = "3")]
    executable_build_options: Option<ExecutableBuildOptionsProto>,
    #[prost(btree_map = "string, message", tag = "7")]
    env_option_overrides: BTreeMap<String, OptionOverrideProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ExecutableBuildOptionsProto {
    #[prost(int64, tag = "1")]
    device_ordinal: i64,
    #[prost(int64, tag = "4")]
    num_replicas: i64,
    #[prost(int64, tag = "5")]
    num_partitions: i64,
    #[prost(bool, tag = "6")]
    use_spmd_partitioning: bool,
    #[prost(message, optional, tag = "9")]
    device_assignment: Option<DeviceAssignmentProto>,
    #[prost(bool, tag = "19")]
    use_shardy_partitioner: bool,
}

/// A partition is a "computation" here.
#[derive(Clone, PartialEq, Message)]
struct DeviceAssignmentProto {
    #[prost(int32, tag = "1")]
    replica_count: i32,
    #[prost(int32, tag = "2")]
    computation_count: i32,
    #[prost(message, repeated, tag = "3")]
    computation_devices: Vec<ComputationDevice>,
}

#[derive(Clone, PartialEq, Message)]
struct ComputationDevice {
    #[prost(int64, repeated, tag = "1")]
    replica_device_ids: Vec<i64>,
}

impl DeviceAssignmentProto {
    /// One replica of each partition.
    fn of(devices: &[i64]) -> Option<Self> {
        let one = |&id: &i64| ComputationDevice {
            replica_device_ids: vec![id],
        };
        (!devices.is_empty()).then(|| Self {
            replica_count: 1,
            computation_count: devices.len() as i32,
            computation_devices: devices.iter().map(one).collect(),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct OptionOverrideProto {
    #[prost(oneof = "option_override::Value", tags = "1, 2, 3, 4")]
    value: Option<option_override::Value>,
}

mod option_override {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Float(f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against bytes worked out by hand from the wire format.
    #[test]
    fn encodes_to_the_wire_format() {
        let options = CompileOptions {
            num_partitions: 4,
            env_overrides: vec![("b".into(), OptionValue::Bool(true))],
        };
        let expected = [
            0x1a, 20, // field 3, 20 bytes
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, // 1: -1
            0x20, 1, // 4: 1
            0x28, 4, // 5: 4
            0x30, 1, // 6: true
            0x98, 0x01, 1, // 19: true
            0x3a, 7, // field 7, a map entry
            0x0a, 1, b'b', 0x12, 2, 0x10, 1,
        ];
        assert_eq!(options.encode(&[]), expected);
        let assigned = options.encode(&[7, 5]);
        let expected = [
            0x4a, 14, // field 9, 14 bytes
            0x08, 1, 0x10, 2, // 1: 1, 2: 2
            0x1a, 3, 0x0a, 1, 7, // 3: its packed 1: 7
            0x1a, 3, 0x0a, 1, 5, // 3: its packed 1: 5
        ];
        assert!(assigned.windows(16).any(|bytes| bytes == expected));
    }

    #[test]
    fn order_of_overrides_does_not_matter() {
        let a = ("a".to_owned(), OptionValue::Int(1));
        let b = ("b".to_owned(), OptionValue::Float(0.5));
        let encode = |env_overrides| {
            CompileOptions {
                num_partitions: 1,
                env_overrides,
            }
            .encode(&[])
        };
        assert_eq!(encode(vec![a.clone(), b.clone()]), encode(vec![b, a]));
    }
}

//! How a program's arguments lie over the mesh, as text.

use crate::cli::table::aligned;
use crate::graph::{Input, Sharding};
use crate::programs::Program;

/// Devices that are drawn; of more, the first ones and the last.
const DRAWN: usize = 4;

/// Arguments that belong together and lie alike.
struct Group<'a> {
    name: String,
    sharding: Option<&'a Sharding>,
    /// One of them.
    example: &'a Input,
    arrays: usize,
    bytes: usize,
}

/// A line for each group of arguments: what each device holds of it.
pub(super) fn picture(program: &Program) -> String {
    let devices = program.mesh.as_ref().map_or(1, |mesh| mesh.devices());
    let mut rows = vec![header(devices)];
    for group in groups(program) {
        let split = group.sharding.filter(|s| !s.is_replicated());
        let parts = if split.is_some() { devices } else { 1 };
        let what = match group.arrays {
            1 => group.example.value.shape.to_string(),
            arrays => format!("{arrays} arrays"),
        };
        let on_each = crate::graph::cost::amount((group.bytes / parts) as f64, "B");
        let held = columns(devices).into_iter().map(|device| match device {
            Some(device) => held(&group, split, devices, device),
            None => "..".to_owned(),
        });
        let held: Vec<String> = held.collect();
        rows.push([group.name, what, on_each, held.join(" ")]);
    }
    aligned(&rows)
}

fn header(devices: usize) -> [String; 4] {
    let names = columns(devices).into_iter().map(|device| match device {
        Some(device) => format!("{:>CELL$}", format!("dev {device}")),
        None => "..".to_owned(),
    });
    let names: Vec<String> = names.collect();
    let mesh = format!("mesh: {devices} on `data`");
    [mesh, String::new(), "on each".to_owned(), names.join(" ")]
}

const CELL: usize = 11;

/// The devices that are drawn; `None` stands for those between.
fn columns(devices: usize) -> Vec<Option<usize>> {
    if devices <= DRAWN {
        return (0..devices).map(Some).collect();
    }
    let mut columns: Vec<_> = (0..DRAWN - 1).map(Some).collect();
    columns.extend([None, Some(devices - 1)]);
    columns
}

/// What a device holds of one array of the group.
fn held(group: &Group, split: Option<&Sharding>, devices: usize, device: usize) -> String {
    let axis = split.and_then(|s| s.0.iter().position(Option::is_some));
    let part = match axis {
        None => "all".to_owned(),
        Some(axis) => {
            let rows = group.example.value.dim(axis) / devices;
            format!("{}..{}", device * rows, (device + 1) * rows)
        }
    };
    format!("{part:>CELL$}")
}

fn groups(program: &Program) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for (i, input) in program.graph.inputs.iter().enumerate() {
        let name = match i < program.state {
            true => family(&input.name),
            false => input.name.clone(),
        };
        let sharding = input.sharding.as_ref();
        let alike = |group: &&mut Group| group.name == name && same(group.sharding, sharding);
        let bytes = input.value.shape.bytes();
        match groups.iter_mut().find(alike) {
            Some(group) => {
                group.arrays += 1;
                group.bytes += bytes;
            }
            None => groups.push(Group {
                name,
                sharding,
                example: input,
                arrays: 1,
                bytes,
            }),
        }
    }
    groups
}

/// Whether arrays of these shardings, of any ranks, are split alike.
fn same(a: Option<&Sharding>, b: Option<&Sharding>) -> bool {
    let axis = |s: Option<&Sharding>| s.and_then(|s| s.0.iter().position(Option::is_some));
    axis(a) == axis(b)
}

/// `base_encoder.*` of `base_encoder.norm.bias`, `optimizer.exp_avg.*` of
/// `optimizer.exp_avg.predictor.0.weight`.
fn family(name: &str) -> String {
    let parts = if name.starts_with("optimizer.") { 2 } else { 1 };
    let parts: Vec<&str> = name.split('.').take(parts).collect();
    format!("{}.*", parts.join("."))
}

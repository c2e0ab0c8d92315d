//! The train state: on the devices, and its copies on the host.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::devices::Devices;
use super::gather::Gather;
use super::parts::Parts;
use crate::bad_input;
use crate::checkpoint::{Dtype, HostTensor, Snapshot};
use crate::graph::{DType, Input, Shape, Sharding};
use crate::pjrt::{Arg, Buffer, Event, Executable, Pending};
use crate::programs::{HostArray, Program};

/// A tensor of the state.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    name: String,
    shape: Shape,
    /// What each device holds of it.
    parts: Parts,
    /// The axis along which it is split, if it is.
    axis: Option<usize>,
}

/// The state on the devices, as the program's arguments lie.
pub struct DeviceState {
    tensors: Vec<Tensor>,
    /// By device, then in the program's order.
    buffers: Vec<Vec<Buffer>>,
}

impl DeviceState {
    /// Copies a state to the devices.
    ///
    /// # Errors
    /// [`bad_input!`] if it is not the state of this program.
    pub fn upload(program: &Program, devices: &Devices, state: Vec<HostArray>) -> Result<Self> {
        let mut given: BTreeMap<String, HostArray> = BTreeMap::new();
        for array in state {
            given.insert(array.name.clone(), array);
        }
        let mut buffers: Vec<Vec<Buffer>> = (0..devices.len()).map(|_| Vec::new()).collect();
        let mut tensors = Vec::new();
        for input in &program.graph.inputs[..program.state] {
            let array = given.remove(&input.name);
            let array = check(input, array)?;
            let sharding = input.sharding.as_ref();
            let copies = devices
                .place(&array.data, array.shape, sharding)
                .with_context(|| format!("cannot put {} on the devices", array.name))?;
            for (row, copy) in buffers.iter_mut().zip(copies) {
                row.push(copy);
            }
            tensors.push(Tensor {
                parts: Parts::of(array.shape, sharding, devices.all())?,
                axis: sharding.and_then(Sharding::split_axis),
                name: array.name,
                shape: array.shape,
            });
        }
        match given.into_keys().next() {
            Some(name) => Err(bad_input!(
                "the state has a tensor {name}, which this program has not: it is of another model"
            )),
            None => Ok(Self { tensors, buffers }),
        }
    }

    /// Enqueues a step on its arguments beside the state, whose result is the
    /// new state. Gives its metrics and, for each device, the event that it is
    /// done.
    pub fn step(
        &mut self,
        executable: &Executable,
        inputs: &[Vec<Buffer>],
    ) -> Result<(Buffer, Vec<Event>)> {
        let mut arguments = self.donate();
        for (row, inputs) in arguments.iter_mut().zip(inputs) {
            row.extend(inputs.iter().map(Arg::Borrow));
        }
        let outputs = executable.execute(arguments)?;
        let metrics = self.take(outputs.buffers);
        // All devices have the same.
        let first = metrics.into_iter().flatten().next();
        Ok((first.context("the step gave no metrics")?, outputs.done))
    }

    /// Gives the buffers away to the next step, a row for each device.
    fn donate(&mut self) -> Vec<Vec<Arg<'static>>> {
        let rows = std::mem::take(&mut self.buffers).into_iter();
        rows.map(|row| row.into_iter().map(Arg::Donate).collect())
            .collect()
    }

    /// Takes that step's results: the first ones of each row are the new
    /// state. Gives the others back.
    fn take(&mut self, mut outputs: Vec<Vec<Buffer>>) -> Vec<Vec<Buffer>> {
        let split = |row: &mut Vec<Buffer>| row.split_off(self.tensors.len());
        let others = outputs.iter_mut().map(split).collect();
        self.buffers = outputs;
        others
    }

    /// Bytes on each device.
    pub fn bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.parts.dims().iter().product::<usize>() * t.shape.dtype.bytes();
        self.tensors.iter().map(bytes).sum()
    }

    /// The first device's tensors under `prefix`, by their names: of those
    /// that are split its part.
    pub fn under(&self, prefix: &str) -> Vec<(&str, &Buffer)> {
        let names = self.tensors.iter().map(|t| t.name.as_str());
        let first = self.buffers.iter().take(1).flatten();
        let mut all: Vec<_> = names.zip(first).collect();
        all.retain(|(name, _)| name.starts_with(prefix));
        all
    }

    /// Starts to copy the state after step `step`: from the first device, and
    /// from all of them what is split. The next step may be enqueued at once:
    /// the plugin orders its writes after these reads. What several hosts split
    /// is gathered, which waits for it, while the others
    /// [take part](Self::take_part).
    pub fn copy_out(&self, step: u64, gather: Option<&Gather>) -> Result<Copy> {
        // Who copies out is who may excuse the others.
        let mut excused = || false;
        let mut copies = Vec::new();
        for (i, tensor) in self.tensors.iter().enumerate() {
            let rows = self.buffers.iter().map(|row| &row[i]);
            copies.push(match (gather, tensor.axis) {
                (Some(gather), Some(axis)) => {
                    let whole =
                        gather.whole(tensor.shape, axis, rows.collect(), step, &mut excused)?;
                    HostCopy::Whole(whole.to_host()?)
                }
                _ => {
                    let holders = match tensor.parts.are_whole() {
                        true => 1,
                        false => self.buffers.len(),
                    };
                    let parts = rows.take(holders).map(Buffer::to_host_async);
                    HostCopy::Parts(parts.collect::<Result<_, _>>()?)
                }
            });
        }
        Ok(Copy {
            step,
            tensors: self.tensors.clone(),
            copies,
        })
    }

    /// Hands this host's parts to the one that copies the state out.
    pub fn take_part(
        &self,
        step: u64,
        gather: &Gather,
        excused: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        for (i, tensor) in self.tensors.iter().enumerate() {
            if let Some(axis) = tensor.axis {
                let parts = self.buffers.iter().map(|row| &row[i]).collect();
                gather.whole(tensor.shape, axis, parts, step, excused)?;
            }
        }
        Ok(())
    }
}

/// The tensor for an argument, if it is one.
fn check(input: &Input, array: Option<HostArray>) -> Result<HostArray> {
    let Some(array) = array else {
        return Err(bad_input!(
            "the state has no tensor {}: it is of another model",
            input.name
        ));
    };
    if array.shape != input.value.shape {
        return Err(bad_input!(
            "in the state {} is {}, this program needs {}: it is of another model",
            array.name,
            array.shape,
            input.value.shape
        ));
    }
    Ok(array)
}

/// A copy of the state to the host, under way.
pub struct Copy {
    pub step: u64,
    tensors: Vec<Tensor>,
    copies: Vec<HostCopy>,
}

/// Of a tensor.
enum HostCopy {
    /// Under way.
    Parts(Vec<Pending>),
    Whole(Vec<u8>),
}

impl Copy {
    /// Waits for the copies.
    ///
    /// # Errors
    /// That of the step which was to make the state.
    pub fn wait(self) -> Result<Snapshot> {
        let tensors = self.tensors.into_iter().zip(self.copies);
        let tensors = tensors.map(|(tensor, copies)| {
            let data = match copies {
                HostCopy::Whole(data) => data,
                HostCopy::Parts(parts) => {
                    let parts = parts.into_iter().map(Pending::wait);
                    tensor.parts.join(parts.collect::<Result<_, _>>()?)?
                }
            };
            Ok(host_tensor(tensor.name, tensor.shape, data))
        });
        Snapshot::new(self.step, tensors.collect::<Result<_>>()?)
    }
}

/// The arrays of a checkpoint.
///
/// # Errors
/// [`bad_input!`] for an element type that no state of ours has.
pub fn arrays(snapshot: Snapshot) -> Result<Vec<HostArray>> {
    let tensors = snapshot.into_tensors().into_iter();
    let arrays = tensors.map(|tensor| {
        let dtype = DType::ALL.into_iter().find(|&d| stored(d) == tensor.dtype);
        let fits = tensor.shape.len() <= crate::graph::MAX_RANK;
        let Some(dtype) = dtype.filter(|_| fits) else {
            return Err(bad_input!(
                "the state's {} is {:?} {:?}: no model of ours has such a tensor",
                tensor.name,
                tensor.dtype,
                tensor.shape
            ));
        };
        Ok(HostArray {
            name: tensor.name,
            shape: Shape::new(dtype, &tensor.shape),
            data: tensor.data,
        })
    });
    arrays.collect()
}

/// An array as a checkpoint has it.
pub fn host_tensor(name: String, shape: Shape, data: Vec<u8>) -> HostTensor {
    HostTensor {
        name,
        dtype: stored(shape.dtype),
        shape: shape.dims().to_vec(),
        data,
    }
}

/// An element type as the file format calls it.
fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::Pred => Dtype::BOOL,
        DType::I8 => Dtype::I8,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::U8 => Dtype::U8,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

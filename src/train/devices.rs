//! Host arrays to the devices that run the program.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::parts::Parts;
use crate::graph::{Shape, Sharding};
use crate::pjrt::{Buffer, Client, Device, Executable};

/// The devices of this process that run a program, in the order of its
/// shards.
pub struct Devices {
    client: Arc<Client>,
    /// Places among the client's devices.
    order: Vec<usize>,
    /// The first one's place among the devices of all hosts, and their number.
    first: usize,
    all: usize,
}

impl Devices {
    /// `all` is the number of the program's devices; those of this process lie
    /// together among them.
    pub fn of(client: &Arc<Client>, executable: &Executable, all: usize) -> Result<Self> {
        let place = |id: &i32| {
            let found = client.devices().iter().position(|d| d.id() == *id);
            found.with_context(|| format!("the program runs on device {id}, which is not there"))
        };
        let order = executable.device_ids().iter().map(place);
        let order: Vec<usize> = order.collect::<Result<_>>()?;
        let process = client.process_index();
        let before = client.processes().iter().filter(|p| **p < process);
        Ok(Self {
            first: if order.len() == all {
                0
            } else {
                before.count()
            },
            all,
            order,
            client: client.clone(),
        })
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Device> {
        self.order
            .iter()
            .map(|&place| &self.client.devices()[place])
    }

    /// Devices of all hosts.
    pub fn all(&self) -> usize {
        self.all
    }

    /// A whole array, as it lies over the devices: to each its part.
    pub fn place(
        &self,
        bytes: &[u8],
        shape: Shape,
        sharding: Option<&Sharding>,
    ) -> Result<Vec<Buffer>> {
        self.put(bytes, shape, sharding, self.first, self.all)
    }

    /// This host's rows of an array of `shape`, which is split along its first
    /// axis; or a whole one that is not split.
    pub fn place_own(
        &self,
        bytes: &[u8],
        shape: Shape,
        sharding: Option<&Sharding>,
    ) -> Result<Vec<Buffer>> {
        let is_split = sharding.is_some_and(|sharding| !sharding.is_replicated());
        let mut own = shape.dims().to_vec();
        if is_split && let Some(rows) = own.first_mut() {
            *rows = *rows * self.len() / self.all;
        }
        self.put(bytes, shape.with_dims(&own), sharding, 0, self.len())
    }

    /// Cuts an array into `parts`; this process' devices take those from
    /// `first` on.
    fn put(
        &self,
        bytes: &[u8],
        shape: Shape,
        sharding: Option<&Sharding>,
        first: usize,
        parts: usize,
    ) -> Result<Vec<Buffer>> {
        ensure!(
            bytes.len() == shape.bytes(),
            "{} bytes are no {shape}",
            bytes.len()
        );
        let parts = Parts::of(shape, sharding, parts)?;
        let copy = |(i, device): (usize, &Device)| {
            let bytes = parts.cut(bytes, first + i);
            self.client
                .buffer_from_host(&bytes, shape.dtype, parts.dims(), device)
        };
        Ok(self
            .iter()
            .enumerate()
            .map(copy)
            .collect::<Result<_, _>>()?)
    }
}

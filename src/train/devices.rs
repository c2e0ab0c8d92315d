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
}

impl Devices {
    pub fn of(client: &Arc<Client>, executable: &Executable) -> Result<Self> {
        let place = |id: &i32| {
            let found = client.devices().iter().position(|d| d.id() == *id);
            found.with_context(|| format!("the program runs on device {id}, which is not there"))
        };
        Ok(Self {
            order: executable
                .device_ids()
                .iter()
                .map(place)
                .collect::<Result<_>>()?,
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

    /// An array, as it lies over the devices: each one's part.
    pub fn place(
        &self,
        bytes: &[u8],
        shape: Shape,
        sharding: Option<&Sharding>,
    ) -> Result<Vec<Buffer>> {
        ensure!(
            bytes.len() == shape.bytes(),
            "{} bytes are no {shape}",
            bytes.len()
        );
        let parts = Parts::of(shape, sharding, self.len())?;
        let copy = |(part, device): (usize, &Device)| {
            let bytes = parts.cut(bytes, part);
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

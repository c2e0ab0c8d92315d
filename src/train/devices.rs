//! Host arrays to the devices that run the program.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::graph::Shape;
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

    /// The whole array on each device.
    pub fn replicate(&self, bytes: &[u8], shape: Shape) -> Result<Vec<Buffer>> {
        let copy = |device| {
            self.client
                .buffer_from_host(bytes, shape.dtype, shape.dims(), device)
        };
        Ok(self.iter().map(copy).collect::<Result<_, _>>()?)
    }

    /// Equal parts of the array's first dimension, one for each device.
    pub fn split(&self, bytes: &[u8], shape: Shape) -> Result<Vec<Buffer>> {
        let parts = self.len();
        let fits = shape.rank() > 0 && shape.dims()[0].is_multiple_of(parts);
        ensure!(fits, "{shape} does not split over {parts} devices");
        ensure!(
            bytes.len() == shape.bytes(),
            "{} bytes are no {shape}",
            bytes.len()
        );
        let mut dims = shape.dims().to_vec();
        dims[0] /= parts;
        let chunk = bytes.len() / parts;
        let copy = |(part, device): (usize, &Device)| {
            let bytes = &bytes[part * chunk..(part + 1) * chunk];
            self.client
                .buffer_from_host(bytes, shape.dtype, &dims, device)
        };
        Ok(self
            .iter()
            .enumerate()
            .map(copy)
            .collect::<Result<_, _>>()?)
    }
}

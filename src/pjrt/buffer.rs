//! Arrays on devices, and events.

use super::error::Result;
use super::ffi::{self, Handle, HostCopy};
use crate::graph::DType;

/// An array on a device; freed when dropped, also while a computation that
/// uses it runs.
pub struct Buffer(pub(super) Handle<ffi::Buffer>);

impl Buffer {
    pub fn element_type(&self) -> Result<DType> {
        self.0.element_type()
    }

    pub fn dims(&self) -> Result<Vec<usize>> {
        self.0.dims()
    }

    /// The event that the content is there, or that making it has failed.
    pub fn ready(&self) -> Result<Event> {
        self.0.ready().map(Event)
    }

    /// Waits for the content and copies it: dense, row-major, little-endian.
    ///
    /// # Errors
    /// That of the computation which was to make the content.
    pub fn to_host(&self) -> Result<Vec<u8>> {
        self.to_host_async()?.wait()
    }

    /// Starts the copy and returns at once. The buffer may be dropped or
    /// donated meanwhile.
    pub fn to_host_async(&self) -> Result<Pending> {
        self.0.to_host().map(Pending)
    }
}

/// A copy to the host under way.
pub struct Pending(HostCopy);

impl Pending {
    /// True once `wait` would not block.
    pub fn is_ready(&self) -> Result<bool> {
        self.0.is_ready()
    }

    /// Blocks until the copy is done.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.0.wait()
    }
}

/// Something that the plugin will have done.
pub struct Event(pub(super) Handle<ffi::Event>);

impl Event {
    /// True once it is done or has failed.
    pub fn is_ready(&self) -> Result<bool> {
        self.0.is_ready()
    }

    /// Blocks until it is done, and gives the error if it has failed.
    pub fn wait(&self) -> Result<()> {
        self.0.wait()
    }
}

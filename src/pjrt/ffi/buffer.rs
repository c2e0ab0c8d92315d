//! Calls on buffers and events.

use std::any::Any;
use std::sync::Arc;

use super::super::element::{dense_bytes, from_code};
use super::super::error::{Error, Result};
use super::table::{self, Args, MemoryLayout, Ptr, TiledLayout};
use super::{Buffer, Client, Event, Handle};
use crate::graph::DType;

impl Handle<Buffer> {
    pub fn element_type(&self) -> Result<DType> {
        let mut args = table::BufferElementType::new();
        args.buffer = self.ptr();
        // SAFETY: the buffer is alive.
        unsafe { self.api.call(&mut args)? };
        from_code(args.element_type).ok_or_else(|| {
            Error::Mismatch(format!(
                "a buffer has PJRT element type {}, which this program does not use",
                args.element_type
            ))
        })
    }

    pub fn dims(&self) -> Result<Vec<usize>> {
        let mut args = table::BufferDimensions::new();
        args.buffer = self.ptr();
        // SAFETY: the buffer is alive, and its list with it.
        let dims = unsafe {
            self.api.call(&mut args)?;
            super::slice(args.dims, args.num_dims)
        };
        Ok(dims
            .iter()
            .map(|&d| usize::try_from(d).unwrap_or(0))
            .collect())
    }

    /// The event that the buffer's content is there, or the computation that
    /// makes it has failed.
    pub fn ready(&self) -> Result<Handle<Event>> {
        let mut args = table::BufferReadyEvent::new();
        args.buffer = self.ptr();
        // SAFETY: the buffer is alive.
        unsafe {
            self.api.call(&mut args)?;
            Handle::own(self.api, args.event, None, table::BufferReadyEvent::NAME)
        }
    }

    /// Starts a copy to the host, dense and row-major whatever the layout on
    /// the device.
    pub fn to_host(&self) -> Result<HostCopy> {
        let (element, dims) = (self.element_type()?, self.dims()?);
        let length = dense_bytes(element, &dims).ok_or_else(|| {
            Error::Mismatch(format!("a buffer of {element:?} {dims:?} has no size"))
        })?;
        let mut bytes = vec![0u8; length];
        let minor_to_major: Vec<i64> = (0..dims.len() as i64).rev().collect();
        let layout = MemoryLayout {
            struct_size: size_of::<MemoryLayout>(),
            extension_start: std::ptr::null_mut(),
            tiled: TiledLayout {
                struct_size: size_of::<TiledLayout>(),
                extension_start: std::ptr::null_mut(),
                minor_to_major: minor_to_major.as_ptr(),
                minor_to_major_size: minor_to_major.len(),
                tile_dims: std::ptr::null(),
                tile_dim_sizes: std::ptr::null(),
                num_tiles: 0,
            },
            kind: 0,
            pad: 0,
        };
        let mut args = table::BufferToHostBuffer::new();
        args.src = self.ptr();
        args.host_layout = &layout;
        args.dst = bytes.as_mut_ptr().cast();
        args.dst_size = bytes.len();
        // SAFETY: the layout lives during the call; the destination until the
        // event is ready, since `HostCopy` sees to it.
        let event = unsafe {
            self.api.call(&mut args)?;
            Handle::own(self.api, args.event, None, table::BufferToHostBuffer::NAME)?
        };
        Ok(HostCopy {
            running: Some((event, bytes)),
            _client: self.client.clone(),
        })
    }
}

/// A copy to the host under way. Its bytes live until the plugin is done with
/// them, even if it is dropped before.
pub struct HostCopy {
    /// None only after `wait`.
    running: Option<(Handle<Event>, Vec<u8>)>,
    _client: Option<Arc<Handle<Client>>>,
}

impl HostCopy {
    pub fn is_ready(&self) -> Result<bool> {
        self.running
            .as_ref()
            .map_or(Ok(true), |(event, _)| event.is_ready())
    }

    pub fn wait(mut self) -> Result<Vec<u8>> {
        let Some((event, bytes)) = self.running.take() else {
            return Ok(Vec::new());
        };
        // The copy has ended, well or badly, when this returns.
        event.wait()?;
        Ok(bytes)
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        if let Some((event, bytes)) = self.running.take() {
            event.keep_until_ready(bytes);
        }
    }
}

impl Handle<Event> {
    pub fn is_ready(&self) -> Result<bool> {
        let mut args = table::EventIsReady::new();
        args.event = self.ptr();
        // SAFETY: the event is alive.
        unsafe { self.api.call(&mut args)? };
        Ok(args.is_ready != 0)
    }

    /// Blocks until the event is ready and gives its error, also where it was
    /// ready before.
    pub fn wait(&self) -> Result<()> {
        let mut args = table::EventAwait::new();
        args.event = self.ptr();
        // SAFETY: the event is alive.
        unsafe { self.api.call(&mut args) }
    }

    /// Keeps something until the event is ready, without waiting for it.
    pub fn keep_until_ready(self, kept: impl Any + Send) {
        let api = self.api;
        let event = self.ptr();
        let kept: Box<Kept> = Box::new(Kept {
            event: self,
            _kept: Box::new(kept),
        });
        let kept = Box::into_raw(kept);
        let mut args = table::EventOnReady::new();
        args.event = event;
        args.callback = Some(release);
        args.user_arg = kept.cast();
        // SAFETY: the event lives until the callback has run, since `kept`
        // owns it; the callback runs exactly once.
        if let Err(error) = unsafe { api.call(&mut args) } {
            tracing::debug!("{error}; waiting instead");
            // SAFETY: the call was refused, so that the box is still ours.
            let kept = unsafe { Box::from_raw(kept) };
            let _ = kept.event.wait();
        }
    }
}

struct Kept {
    event: Handle<Event>,
    _kept: Box<dyn Any + Send>,
}

/// Called by the plugin, on a thread of its own, when an event is ready.
///
/// # Safety
/// `user_arg` is the box that `keep_until_ready` made.
unsafe extern "C" fn release(error: Ptr, user_arg: Ptr) {
    // SAFETY: made by `Box::into_raw`, and given back once.
    let kept = unsafe { Box::from_raw(user_arg.cast::<Kept>()) };
    if let Some(error) = std::ptr::NonNull::new(error) {
        // Also told by the buffer's own event, where somebody waits for it.
        let error = kept.event.api.take_error(error, table::EventOnReady::NAME);
        tracing::debug!("{error}");
    }
}

//! The boundary to a plugin: the only place that calls through its C API.
//!
//! What leaves this module is safe to use in any order. A handle owns its
//! object and keeps the client alive that the object belongs to; bytes that
//! the plugin reads or writes after a call returns are kept until it says
//! that it is done. Trusted, as it cannot be checked: that a plugin of API
//! 0.x does what `pjrt_c_api.h` says.

mod buffer;
mod client;
pub mod environment;
mod executable;
mod key_value;
mod table;
mod topology;
mod value;

use std::ffi::c_char;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::{Code, Error, Result};
use table::{API_HEADER_SIZE, ApiHeader, Args, Ptr};

pub use buffer::HostCopy;
pub use client::{DeviceHandle, MemoryInUse};
pub use executable::CompiledMemory;
pub use value::Value;

/// The loader's own words, such as which library is missing, are the source
/// of its error.
fn in_words(error: &libloading::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(reason) => format!("it cannot be loaded: {reason}"),
        None => error.to_string(),
    }
}

/// Loads a shared library for good, so that those who ask for one of its name
/// later find it. The error is the reason in words.
pub fn preload(path: &Path) -> Result<(), String> {
    // SAFETY: loading runs the library's initialisers. It lies beside a plugin
    // that would load it itself.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| in_words(&e))?;
    Box::leak(Box::new(library));
    Ok(())
}

/// A loaded plugin's function table. It lives as long as the process, since
/// plugins are never unloaded.
#[derive(Clone, Copy)]
pub struct Api(NonNull<ApiHeader>);

// SAFETY: the table is written before `GetPjrtApi` returns and never after.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// Loads a shared library for good and asks it for its function table.
    /// The error is the reason in words.
    pub fn open(path: &Path) -> Result<Api, String> {
        // SAFETY: loading runs the library's initialisers. That is what
        // loading a plugin means; the user named the file or its hash is
        // pinned.
        let library = unsafe { libloading::Library::new(path) }.map_err(|e| in_words(&e))?;
        // Unloading a plugin would pull code from under its threads.
        let library = Box::leak(Box::new(library));
        // SAFETY: this is the entry point's type in every version of the API.
        let entry =
            unsafe { library.get::<unsafe extern "C" fn() -> *const ApiHeader>(b"GetPjrtApi\0") }
                .map_err(|_| "it is a shared library, but it exports no GetPjrtApi".to_owned())?;
        // SAFETY: as above.
        let table = NonNull::new(unsafe { entry() }.cast_mut())
            .ok_or("its GetPjrtApi returns no function table")?;
        let api = Api(table);
        if api.header().struct_size < API_HEADER_SIZE {
            return Err("its function table is shorter than its own header".to_owned());
        }
        Ok(api)
    }

    fn header(&self) -> &'static ApiHeader {
        // SAFETY: checked non-null; never freed, since never unloaded.
        unsafe { self.0.as_ref() }
    }

    /// (major, minor) version of the API that the plugin was built with.
    pub fn version(&self) -> (i32, i32) {
        (self.header().major, self.header().minor)
    }

    /// Address of a function; none where the table ends before it or has a
    /// hole there.
    fn function<T: Args>(&self) -> Option<NonNull<()>> {
        let offset = API_HEADER_SIZE + T::SLOT * size_of::<Ptr>();
        if offset + size_of::<Ptr>() > self.header().struct_size {
            return None;
        }
        // SAFETY: the table says that it is long enough to hold this entry.
        let entry = unsafe { self.0.as_ptr().cast::<u8>().add(offset) };
        // SAFETY: as above; the table is aligned as its pointers are.
        NonNull::new(unsafe { entry.cast::<*mut ()>().read() })
    }

    fn missing<T: Args>(&self) -> Error {
        let (major, minor) = self.version();
        Error::Missing {
            call: T::NAME,
            major,
            minor,
        }
    }

    /// Calls the function that `T` belongs to.
    ///
    /// # Safety
    /// The arguments are as the header asks: handles alive and of the right
    /// kind, pointers valid for their lengths and for as long as it says.
    unsafe fn call<T: Args>(&self, args: &mut T) -> Result<()> {
        let function = self.function::<T>().ok_or_else(|| self.missing::<T>())?;
        // SAFETY: every function but the two of `call_void` has this type.
        let function = unsafe {
            std::mem::transmute::<NonNull<()>, unsafe extern "C" fn(*mut T) -> Ptr>(function)
        };
        // SAFETY: promised by the caller.
        match NonNull::new(unsafe { function(args) }) {
            None => Ok(()),
            Some(error) => Err(self.take_error(error, T::NAME)),
        }
    }

    /// As `call`, for `PJRT_Error_Destroy` and `PJRT_Error_Message`, which
    /// return nothing.
    ///
    /// # Safety
    /// As of `call`.
    unsafe fn call_void<T: Args>(&self, args: &mut T) {
        if let Some(function) = self.function::<T>() {
            // SAFETY: the type of these two functions.
            let function = unsafe {
                std::mem::transmute::<NonNull<()>, unsafe extern "C" fn(*mut T)>(function)
            };
            // SAFETY: promised by the caller.
            unsafe { function(args) };
        }
    }

    /// Reads an error and frees it.
    fn take_error(&self, error: NonNull<std::ffi::c_void>, call: &'static str) -> Error {
        let error = error.as_ptr();
        let mut message = table::ErrorMessage::new();
        message.error = error;
        // SAFETY: the error is alive until destroyed below.
        unsafe { self.call_void(&mut message) };
        // SAFETY: the message lives as long as the error.
        let text = unsafe { text(message.message, message.message_size) };

        let mut code = table::ErrorGetCode::new();
        code.error = error;
        let answered = match self.function::<table::ErrorGetCode>() {
            Some(function) => {
                // SAFETY: the function's type.
                let function = unsafe {
                    std::mem::transmute::<
                        NonNull<()>,
                        unsafe extern "C" fn(*mut table::ErrorGetCode) -> Ptr,
                    >(function)
                };
                // SAFETY: the error is alive. An error about an error is not
                // followed further.
                unsafe { function(&mut code) }.is_null()
            }
            None => false,
        };

        let mut destroy = table::ErrorDestroy::new();
        destroy.error = error;
        // SAFETY: the error is ours, and not used after.
        unsafe { self.call_void(&mut destroy) };
        Error::Plugin {
            call,
            code: if answered {
                Code(code.code)
            } else {
                Code::UNKNOWN
            },
            message: text,
        }
    }

    /// One-time set-up of the plugin, before anything else is asked of it.
    pub fn initialize(&self) -> Result<()> {
        // SAFETY: there are no arguments.
        unsafe { self.call(&mut table::PluginInitialize::new()) }
    }

    /// What the plugin says of itself (versions of XLA and StableHLO).
    pub fn attributes(&self) -> Result<Vec<(String, Value)>> {
        let mut args = table::PluginAttributes::new();
        // SAFETY: outputs only; they live as long as the process.
        unsafe {
            self.call(&mut args)?;
            Ok(value::read_named(args.attributes, args.num_attributes))
        }
    }
}

/// A kind of object that a plugin hands out and takes back.
pub trait Kind {
    #[doc(hidden)]
    type Destroy: Args;
    #[doc(hidden)]
    fn destroy(object: Ptr) -> Self::Destroy;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident destroyed by $destroy:ident { $field:ident })*) => {$(
        $(#[$doc])*
        pub enum $kind {}
        impl Kind for $kind {
            type Destroy = table::$destroy;
            fn destroy(object: Ptr) -> Self::Destroy {
                let mut args = table::$destroy::new();
                args.$field = object;
                args
            }
        }
    )*};
}

kinds! {
    Client destroyed by ClientDestroy { client }
    Event destroyed by EventDestroy { event }
    Buffer destroyed by BufferDestroy { buffer }
    /// An executable that can be inspected and serialised.
    Executable destroyed by ExecutableDestroy { executable }
    /// An executable that can run on a client's devices.
    LoadedExecutable destroyed by LoadedExecutableDestroy { executable }
    Topology destroyed by TopologyDestroy { topology }
}

/// An object of the plugin, destroyed when dropped.
pub struct Handle<K: Kind> {
    api: Api,
    object: NonNull<std::ffi::c_void>,
    /// The client that the object belongs to; destroyed after it.
    client: Option<Arc<Handle<Client>>>,
    kind: PhantomData<fn() -> K>,
}

// SAFETY: PJRT's objects may be used from any thread, several at once: that
// is how JAX, from one thread per device, uses them.
unsafe impl<K: Kind> Send for Handle<K> {}
// SAFETY: as above.
unsafe impl<K: Kind> Sync for Handle<K> {}

impl<K: Kind> Handle<K> {
    /// Takes ownership of what a call has returned.
    ///
    /// # Safety
    /// `object` is null or an object of this kind that nobody else destroys.
    unsafe fn own(
        api: Api,
        object: Ptr,
        client: Option<&Arc<Handle<Client>>>,
        call: &'static str,
    ) -> Result<Self> {
        let object = NonNull::new(object).ok_or_else(|| Error::Plugin {
            call,
            code: Code::INTERNAL,
            message: "no error, and no result either".to_owned(),
        })?;
        Ok(Handle {
            api,
            object,
            client: client.cloned(),
            kind: PhantomData,
        })
    }

    fn ptr(&self) -> Ptr {
        self.object.as_ptr()
    }
}

impl<K: Kind> Drop for Handle<K> {
    fn drop(&mut self) {
        let mut args = K::destroy(self.ptr());
        // SAFETY: the object is ours and not used after.
        if let Err(error) = unsafe { self.api.call(&mut args) } {
            tracing::warn!("{error}");
        }
    }
}

/// Text of the plugin; empty where it gave none.
///
/// # Safety
/// `start` is null or valid for `length` bytes.
unsafe fn text(start: *const c_char, length: usize) -> String {
    // SAFETY: promised by the caller.
    String::from_utf8_lossy(unsafe { slice(start.cast::<u8>(), length) }).into_owned()
}

/// A slice of the plugin's; empty where it gave none.
///
/// # Safety
/// `start` is null or valid for `length` elements during `'a`.
unsafe fn slice<'a, T>(start: *const T, length: usize) -> &'a [T] {
    if start.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(start, length) }
}

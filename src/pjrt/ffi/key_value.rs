//! The callbacks through which a plugin's processes talk: a plugin calls them
//! with the [`Store`] that the job's processes share.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::super::error::Code;
use super::super::store::{Store, TimedOut};
use super::table::Ptr;

/// Makes an error of the plugin's, from a copy of the message.
type CallbackError = unsafe extern "C" fn(u32, *const c_char, usize) -> Ptr;

/// `PJRT_KeyValueGetCallback_Args`, 80 bytes.
#[repr(C)]
struct Get {
    struct_size: usize,
    extension_start: Ptr,
    key: *const c_char,
    key_size: usize,
    timeout_in_ms: c_int,
    callback_error: *const CallbackError,
    user_arg: Ptr,
    value: *mut c_char,
    value_size: usize,
    value_deleter: Option<unsafe extern "C" fn(*mut c_char)>,
}

/// `PJRT_KeyValueTryGetCallback_Args`.
#[repr(C)]
struct TryGet {
    struct_size: usize,
    extension_start: Ptr,
    key: *const c_char,
    key_size: usize,
    callback_error: *const CallbackError,
    user_arg: Ptr,
    value: *mut c_char,
    value_size: usize,
    value_deleter: Option<unsafe extern "C" fn(*mut c_char)>,
}

/// `PJRT_KeyValuePutCallback_Args`.
#[repr(C)]
struct Put {
    struct_size: usize,
    extension_start: Ptr,
    key: *const c_char,
    key_size: usize,
    value: *const c_char,
    value_size: usize,
    callback_error: *const CallbackError,
    user_arg: Ptr,
}

const _: () =
    assert!(size_of::<Get>() == 80 && size_of::<TryGet>() == 72 && size_of::<Put>() == 64);

/// A store as the plugin passes it back to us.
pub struct UserArg(&'static Arc<dyn Store>);

impl UserArg {
    /// A plugin may call for as long as it has threads, that is for ever; a
    /// process makes one such client.
    pub fn leak(store: Arc<dyn Store>) -> Self {
        Self(Box::leak(Box::new(store)))
    }

    pub fn as_ptr(&self) -> Ptr {
        std::ptr::from_ref(self.0).cast_mut().cast()
    }
}

pub fn get_callback() -> Ptr {
    get as unsafe extern "C" fn(*mut Get) -> Ptr as Ptr
}

pub fn try_get_callback() -> Ptr {
    try_get as unsafe extern "C" fn(*mut TryGet) -> Ptr as Ptr
}

pub fn put_callback() -> Ptr {
    put as unsafe extern "C" fn(*mut Put) -> Ptr as Ptr
}

unsafe extern "C" fn get(args: *mut Get) -> Ptr {
    // SAFETY: the plugin gives a struct that is ours during the call, with
    // the user argument that it was given.
    let (args, store) = unsafe { (&mut *args, store((*args).user_arg)) };
    let timeout = Duration::from_millis(u64::try_from(args.timeout_in_ms).unwrap_or(0));
    let found = guarded(|| {
        // SAFETY: the key is valid during the call.
        let key = unsafe { text(args.key, args.key_size) };
        store.get(&key, timeout)
    });
    // SAFETY: `callback_error` is the plugin's own function.
    let give = |value| {
        give(
            value,
            &mut args.value,
            &mut args.value_size,
            &mut args.value_deleter,
        )
    };
    unsafe { answer(found.map(give), args.callback_error) }
}

unsafe extern "C" fn try_get(args: *mut TryGet) -> Ptr {
    // SAFETY: as in `get`.
    let (args, store) = unsafe { (&mut *args, store((*args).user_arg)) };
    let found = guarded(|| {
        // SAFETY: as in `get`.
        let key = unsafe { text(args.key, args.key_size) };
        let value = store.try_get(&key)?;
        value.ok_or_else(|| NotFound(key).into())
    });
    let give = |value| {
        give(
            value,
            &mut args.value,
            &mut args.value_size,
            &mut args.value_deleter,
        )
    };
    // SAFETY: as in `get`.
    unsafe { answer(found.map(give), args.callback_error) }
}

unsafe extern "C" fn put(args: *mut Put) -> Ptr {
    // SAFETY: as in `get`.
    let (args, store) = unsafe { (&mut *args, store((*args).user_arg)) };
    let done = guarded(|| {
        // SAFETY: key and value are valid during the call.
        let (key, value) = unsafe {
            (
                text(args.key, args.key_size),
                super::slice(args.value.cast::<u8>(), args.value_size),
            )
        };
        store.put(&key, value)
    });
    // SAFETY: as in `get`.
    unsafe { answer(done, args.callback_error) }
}

/// The store has no such key.
#[derive(Debug, thiserror::Error)]
#[error("nobody has set {0:?}")]
struct NotFound(String);

/// # Safety
/// `user_arg` is that of a [`UserArg`].
unsafe fn store(user_arg: Ptr) -> &'static Arc<dyn Store> {
    // SAFETY: it was leaked, so it lives as long as the process.
    unsafe { &*user_arg.cast::<Arc<dyn Store>>() }
}

/// # Safety
/// As of [`super::text`].
unsafe fn text(start: *const c_char, size: usize) -> String {
    // SAFETY: promised by the caller.
    unsafe { super::text(start, size) }
}

/// No panic may unwind into the plugin.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(anyhow!("the store panicked")))
}

/// Hands a value over; the plugin frees it by the deleter.
fn give(
    value: Vec<u8>,
    to: &mut *mut c_char,
    size: &mut usize,
    deleter: &mut Option<unsafe extern "C" fn(*mut c_char)>,
) {
    // The deleter is told no size, so the value carries it in front.
    let length = value.len();
    let mut block = Vec::with_capacity(HEADER + length);
    block.extend((HEADER + length).to_ne_bytes());
    block.extend(value);
    let block = Box::leak(block.into_boxed_slice());
    *to = block[HEADER..].as_mut_ptr().cast();
    *size = length;
    *deleter = Some(delete);
}

const HEADER: usize = size_of::<usize>();

unsafe extern "C" fn delete(value: *mut c_char) {
    if value.is_null() {
        return;
    }
    // SAFETY: `give` made it: a boxed slice that begins with its own length.
    unsafe {
        let start = value.cast::<u8>().sub(HEADER);
        let mut length = [0; HEADER];
        std::ptr::copy_nonoverlapping(start, length.as_mut_ptr(), HEADER);
        let block = std::ptr::slice_from_raw_parts_mut(start, usize::from_ne_bytes(length));
        drop(Box::from_raw(block));
    }
}

/// Null for a success, else the plugin's own error.
///
/// # Safety
/// `make` is the plugin's function for errors.
unsafe fn answer(result: Result<()>, make: *const CallbackError) -> Ptr {
    let Err(error) = result else {
        return std::ptr::null_mut();
    };
    let code = match &error {
        error if error.is::<TimedOut>() => Code::DEADLINE_EXCEEDED,
        error if error.is::<NotFound>() => Code::NOT_FOUND,
        _ => Code::UNAVAILABLE,
    };
    let message = format!("{error:#}");
    // SAFETY: promised by the caller; the message is copied.
    unsafe { (*make)(code.0, message.as_ptr().cast(), message.len()) }
}

#[cfg(test)]
mod tests {
    use super::super::super::store::open;
    use super::*;

    /// A plugin's error: code and message.
    unsafe extern "C" fn error(code: u32, message: *const c_char, size: usize) -> Ptr {
        // SAFETY: `answer` gives a message.
        let message = unsafe { text(message, size) };
        Box::into_raw(Box::new((code, message))).cast()
    }

    fn read(error: Ptr) -> Option<(u32, String)> {
        // SAFETY: made by `error`.
        (!error.is_null()).then(|| *unsafe { Box::from_raw(error.cast::<(u32, String)>()) })
    }

    /// The store as a plugin sees it.
    struct Plugin(UserArg);

    impl Plugin {
        fn put(&self, key: &str, value: &[u8]) -> Option<(u32, String)> {
            let make: CallbackError = error;
            let mut args = Put {
                struct_size: size_of::<Put>(),
                extension_start: std::ptr::null_mut(),
                key: key.as_ptr().cast(),
                key_size: key.len(),
                value: value.as_ptr().cast(),
                value_size: value.len(),
                callback_error: &make,
                user_arg: self.0.as_ptr(),
            };
            // SAFETY: as a plugin would.
            read(unsafe { put(&mut args) })
        }

        fn get(&self, key: &str, timeout_in_ms: c_int) -> Result<Vec<u8>, (u32, String)> {
            let make: CallbackError = error;
            let mut args = Get {
                struct_size: size_of::<Get>(),
                extension_start: std::ptr::null_mut(),
                key: key.as_ptr().cast(),
                key_size: key.len(),
                timeout_in_ms,
                callback_error: &make,
                user_arg: self.0.as_ptr(),
                value: std::ptr::null_mut(),
                value_size: 0,
                value_deleter: None,
            };
            // SAFETY: as a plugin would.
            let error = unsafe { get(&mut args) };
            taken(error, args.value, args.value_size, args.value_deleter)
        }

        fn try_get(&self, key: &str) -> Result<Vec<u8>, (u32, String)> {
            let make: CallbackError = error;
            let mut args = TryGet {
                struct_size: size_of::<TryGet>(),
                extension_start: std::ptr::null_mut(),
                key: key.as_ptr().cast(),
                key_size: key.len(),
                callback_error: &make,
                user_arg: self.0.as_ptr(),
                value: std::ptr::null_mut(),
                value_size: 0,
                value_deleter: None,
            };
            // SAFETY: as a plugin would.
            let error = unsafe { try_get(&mut args) };
            taken(error, args.value, args.value_size, args.value_deleter)
        }
    }

    fn taken(
        error: Ptr,
        value: *mut c_char,
        size: usize,
        deleter: Option<unsafe extern "C" fn(*mut c_char)>,
    ) -> Result<Vec<u8>, (u32, String)> {
        if let Some(error) = read(error) {
            return Err(error);
        }
        // SAFETY: a value that was given, and is freed once.
        unsafe {
            let bytes = std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec();
            deleter.expect("a value comes with its deleter")(value);
            Ok(bytes)
        }
    }

    fn exchange(address: &str) {
        let plugin = Plugin(UserArg::leak(open(address).unwrap()));
        let (key, value) = ("nccl:0\u{e9}", b"\0unique\xff");
        assert_eq!(plugin.try_get(key).unwrap_err().0, Code::NOT_FOUND.0);
        let (code, message) = plugin.get(key, 20).unwrap_err();
        assert_eq!(code, Code::DEADLINE_EXCEEDED.0);
        assert!(message.contains("nccl:0"), "{message}");
        assert_eq!(plugin.put(key, value), None);
        assert_eq!(plugin.get(key, 0).unwrap(), value);
        assert_eq!(plugin.try_get(key).unwrap(), value);
        assert_eq!(plugin.put("empty", b""), None);
        assert_eq!(plugin.get("empty", 0).unwrap(), b"");
    }

    #[test]
    fn a_plugin_puts_and_gets_through_a_shared_folder() {
        let folder = tempfile::tempdir().unwrap();
        exchange(&format!("file:{}", folder.path().display()));
    }

    #[test]
    fn a_store_that_went_away_is_an_error_of_the_plugins() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("file:{}", folder.path().display());
        let plugin = Plugin(UserArg::leak(open(&address).unwrap()));
        drop(folder);
        let (code, message) = plugin.put("key", b"value").unwrap();
        assert_eq!(code, Code::UNAVAILABLE.0);
        assert!(message.contains("cannot write to the store"), "{message}");
        assert_eq!(plugin.get("key", 1000).unwrap_err().0, Code::UNAVAILABLE.0);
    }

    /// A real server of this test's own, where one is installed.
    #[cfg(feature = "rendezvous")]
    #[test]
    fn a_plugin_puts_and_gets_through_a_redis_server() {
        use std::process::{Command, Stdio};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let server = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(mut server) = server else {
            eprintln!("skipped: no redis-server on this machine");
            return;
        };
        let address = format!("redis://127.0.0.1:{port}");
        let start = std::time::Instant::now();
        while open(&address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        exchange(&address);
        let plugin = Plugin(UserArg::leak(open(&address).unwrap()));
        server.kill().unwrap();
        server.wait().unwrap();
        let (code, message) = plugin.put("key", b"value").unwrap();
        assert_eq!(code, Code::UNAVAILABLE.0);
        assert!(message.contains("does not answer"), "{message}");
        let error = open(&address).err().unwrap();
        assert!(error.is::<crate::error::BadInput>(), "{error}");
    }
}

//! Errors of the runtime.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong once a plugin is loaded.
///
/// Faults of the plugin *file* (no such file, not a plugin, too old) are the
/// user's to mend and travel as [`crate::error::BadInput`] instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plugin refused a call or a computation failed; its own words.
    #[error("{call}: the plugin reports {code}: {message}{}", advice(*.code))]
    Plugin {
        call: &'static str,
        code: Code,
        message: String,
    },
    /// The plugin's function table ends before this function, or has a hole.
    #[error(
        "the plugin (PJRT API {major}.{minor}) does not offer {call}; \
         a newer plugin is needed (`xla-moco plugins list` shows the known ones)"
    )]
    Missing {
        call: &'static str,
        major: i32,
        minor: i32,
    },
    /// The caller and the plugin disagree on a shape, a type or a count.
    #[error("{0}")]
    Mismatch(String),
}

impl Error {
    /// The plugin's status code, where the error is the plugin's.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Plugin { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// True where the plugin does not implement what was asked.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Error::Missing { .. }) || self.code() == Some(Code::UNIMPLEMENTED)
    }
}

/// A status code as in Abseil and gRPC, which PJRT uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Code(pub u32);

impl Code {
    pub const UNKNOWN: Code = Code(2);
    pub const INVALID_ARGUMENT: Code = Code(3);
    pub const DEADLINE_EXCEEDED: Code = Code(4);
    pub const NOT_FOUND: Code = Code(5);
    pub const RESOURCE_EXHAUSTED: Code = Code(8);
    pub const UNIMPLEMENTED: Code = Code(12);
    pub const INTERNAL: Code = Code(13);
    pub const UNAVAILABLE: Code = Code(14);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 17] = [
            "OK",
            "Cancelled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// What the user can do, for the codes where that is known.
fn advice(code: Code) -> &'static str {
    match code {
        Code::RESOURCE_EXHAUSTED => {
            " (out of device memory: use a smaller batch, more devices, `accumulate`, or remat)"
        }
        Code::UNAVAILABLE => {
            " (is the device free, and its driver loaded? `xla-moco plugins check` tries the plugin)"
        }
        _ => "",
    }
}

//! How calls end: a status, and the words for it.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Error;

/// How a call ended. Negative numbers are failures; numbers keep their meaning for ever.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    /// Not done yet; not a failure.
    Pending = 1,
    /// A value outside its range, or a null pointer where none may be.
    InvalidArgument = -1,
    /// A handle that is null, closed, or no handle.
    InvalidHandle = -2,
    /// The operating system refused.
    Io = -3,
    /// Checkpoints that are damaged or do not fit together.
    BadModel = -4,
    OutOfMemory = -5,
    /// A device that cannot be used, or failed at work.
    Device = -6,
    Cancelled = -7,
    /// Not done within the request's deadline.
    Deadline = -8,
    /// The queue is full; try again later.
    Busy = -9,
    /// The engine takes no more requests, or ended before this one was done.
    Ended = -10,
    BufferTooSmall = -11,
    /// A defect of the library.
    Internal = -99,
}

/// A failure on its way to the caller.
pub(super) struct Failure {
    pub status: Status,
    pub text: String,
}

impl Failure {
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub fn argument(text: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, text)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let status = match error {
            Error::Io { .. } => Status::Io,
            Error::Format { .. } | Error::Tensor { .. } | Error::Mismatch { .. } => Status::BadModel,
            Error::Option { .. } => Status::InvalidArgument,
            Error::OutOfMemory { .. } => Status::OutOfMemory,
            Error::Device { .. } => Status::Device,
            Error::Cancelled => Status::Cancelled,
            Error::Deadline { .. } => Status::Deadline,
            Error::Busy { .. } => Status::Busy,
            Error::Ended { .. } => Status::Ended,
        };
        let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
        Self::new(status, format!("{error}{hint}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs a call's body: failures and panics become a status, and their words this thread's last error.
pub(super) fn guard(body: impl FnOnce() -> Result<Status, Failure>) -> Status {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::new(Status::Internal, format!("smalti panicked: {}", words(panic.as_ref()))),
    };
    let text = CString::new(failure.text.replace('\0', "?")).unwrap_or_default();
    // A thread that is ending has nowhere to keep it.
    LAST_ERROR.try_with(|last| last.replace(text)).ok();
    failure.status
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Copies the words for this thread's last failure to `buffer`, as many as fit, with a zero behind them.
///
/// Returns how many bytes all of them take, with the zero; 1 when nothing has failed yet. `buffer` may be null when
/// `capacity` is 0.
///
/// # Safety
///
/// `buffer` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_last_error(buffer: *mut c_char, capacity: usize) -> usize {
    let copy = |last: &RefCell<CString>| {
        let text = last.borrow();
        let bytes = text.as_bytes_with_nul();
        if !buffer.is_null() && capacity > 0 {
            let kept = (bytes.len() - 1).min(capacity - 1);
            // SAFETY: the caller's word for `capacity` bytes; `kept` and the zero are no more.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, kept);
                buffer.add(kept).write(0);
            }
        }
        bytes.len()
    };
    LAST_ERROR.try_with(copy).unwrap_or(1)
}

/// The name of a status: "SMALTI_STATUS_BUSY". A constant that need not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"SMALTI_STATUS_OK",
        1 => c"SMALTI_STATUS_PENDING",
        -1 => c"SMALTI_STATUS_INVALID_ARGUMENT",
        -2 => c"SMALTI_STATUS_INVALID_HANDLE",
        -3 => c"SMALTI_STATUS_IO",
        -4 => c"SMALTI_STATUS_BAD_MODEL",
        -5 => c"SMALTI_STATUS_OUT_OF_MEMORY",
        -6 => c"SMALTI_STATUS_DEVICE",
        -7 => c"SMALTI_STATUS_CANCELLED",
        -8 => c"SMALTI_STATUS_DEADLINE",
        -9 => c"SMALTI_STATUS_BUSY",
        -10 => c"SMALTI_STATUS_ENDED",
        -11 => c"SMALTI_STATUS_BUFFER_TOO_SMALL",
        -99 => c"SMALTI_STATUS_INTERNAL",
        _ => c"SMALTI_STATUS_UNKNOWN",
    };
    name.as_ptr()
}

/// The library's version: "0.1.0". A constant that need not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What this header promises: programs built with it run with every library of the same major number that says at
/// least the same minor one.
pub const SMALTI_ABI_MAJOR: u32 = 1;
/// Grows with every addition.
pub const SMALTI_ABI_MINOR: u32 = 2;

/// The library's SMALTI_ABI_MAJOR and SMALTI_ABI_MINOR. Either pointer may be null.
///
/// # Safety
///
/// What is not null can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_abi_version(major: *mut u32, minor: *mut u32) {
    for (to, value) in [(major, SMALTI_ABI_MAJOR), (minor, SMALTI_ABI_MINOR)] {
        if !to.is_null() {
            // SAFETY: the caller's word.
            unsafe { to.write(value) };
        }
    }
}

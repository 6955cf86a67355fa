//! The C interface: [`crate::engine`] behind opaque handles, status codes and structs that can grow.
//!
//! `include/smalti.h` is made from this room by cbindgen (`tests/capi` holds it against these files; with
//! `SMALTI_UPDATE=1` it writes it anew). The library is `libsmalti.so`, or `libsmalti.a`.
//!
//! Rules that hold for every function:
//! - A handle is a number in the guise of a pointer and is looked up, never followed. One that is null, closed or
//!   made up is `SMALTI_STATUS_INVALID_HANDLE`.
//! - What goes wrong is a status; [`smalti_last_error`] has the words, per thread. No panic leaves the library.
//! - Structs begin with `struct_size`, the caller's size of them, and their `_init` functions fill in all defaults.
//!   Later versions append fields, so a program that was built with an older header goes on to work.
//! - Strings are UTF-8, end with a zero, and are copied. Functions may be called from any thread at once.
//!
//! Depends on the crate's public face alone. Tested by `tests/capi`: a C program under the address and leak
//! sanitizers, and Python by ctypes.
//!
//! [`smalti_last_error`]: status::smalti_last_error

pub mod engine;
mod handles;
pub mod options;
mod read;
pub mod request;
pub mod status;

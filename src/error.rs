//! The one error type: what, where, expected, found, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::bytes;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, told so that the reader can mend it.
///
/// `Display` is one paragraph without the cure; [`Error::hint`] is the cure where one is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: "open", "map", "write" …
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// A file is not what its format promises.
    #[error("{}: not a usable {}: {problem}", path.display(), thing(format))]
    Format {
        path: PathBuf,
        /// "safetensors", "PyTorch", "PNG" …; a name that ends with "folder" is one, all else are files.
        format: &'static str,
        /// What was expected and what was found, and in which entry or tensor.
        problem: String,
        /// What to do about it; empty where no cure is known.
        hint: String,
    },

    /// A tensor is missing, unknown, or of the wrong shape or type.
    #[error("{}: tensor `{tensor}`: expected {expected}, found {found}", path.display())]
    Tensor { path: PathBuf, tensor: String, expected: String, found: String, hint: String },

    /// Two things that must agree do not: two checkpoints, codes and a model …
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch { what: String, expected: String, found: String, hint: String },

    /// An option outside its range. The program exits with 2.
    #[error("{} {value}: expected {expected}", flag(option))]
    Option {
        /// The flag's name without dashes, as the command line, the server and the C interface spell it;
        /// in capitals, the name of an argument without a flag or of an environment variable.
        option: &'static str,
        value: String,
        expected: String,
        hint: String,
    },

    /// The device has too little memory; told before anything runs.
    #[error("{what} needs {} of memory, {} are free", bytes(*needed_bytes), bytes(*free_bytes))]
    OutOfMemory { what: String, needed_bytes: u64, free_bytes: u64, hint: String },

    /// A device cannot be used, or failed at work.
    #[error("{device}: {problem}")]
    Device {
        /// Its number and name.
        device: String,
        /// What was done (op, kernel, shapes) and what came of it.
        problem: String,
        hint: String,
    },

    /// The progress callback asked to stop, or the request was cancelled.
    #[error("cancelled")]
    Cancelled,

    /// As many requests wait as may wait; another is not taken now.
    #[error("busy: {waiting} requests are waiting, as many as may wait")]
    Busy { waiting: usize },

    /// A request was not done in the time that it was given.
    #[error("not done within {:.3} s", after.as_secs_f64())]
    Deadline { after: Duration },

    /// A session takes no more requests, or ended before this one was done.
    #[error("the session has ended: {reason}")]
    Ended { reason: String },
}

/// What of a format is not usable.
fn thing(format: &str) -> String {
    if format.ends_with("folder") { format.into() } else { format!("{format} file") }
}

/// An option as the user writes it.
fn flag(option: &str) -> String {
    let dashes = if option.starts_with(|c: char| c.is_ascii_uppercase()) { "" } else { "--" };
    format!("{dashes}{option}")
}

impl Error {
    /// An [`Error::Io`] about `path`; for `map_err`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// What to do about it, where a cure is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Format { hint, .. }
            | Self::Tensor { hint, .. }
            | Self::Mismatch { hint, .. }
            | Self::Option { hint, .. }
            | Self::OutOfMemory { hint, .. }
            | Self::Device { hint, .. } => Some(hint.as_str()).filter(|hint| !hint.is_empty()),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("check the path"),
                io::ErrorKind::StorageFull => Some("make room on the disk, or write elsewhere"),
                _ => None,
            },
            Self::Busy { .. } => Some("try again in a while"),
            Self::Deadline { .. } | Self::Ended { .. } | Self::Cancelled => None,
        }
    }

    /// Whether the caller used the program wrongly (exit code 2) rather than the work having failed (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Option { .. })
    }
}

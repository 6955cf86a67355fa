//! What the readers of all formats share: the mapped file, and which of two sets of weights is wanted.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// Which weights to take from a training checkpoint that holds two sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum WeightsChoice {
    /// The weights under `model`, `module` or `state_dict`, or bare; `ema` where it is the only set.
    #[default]
    Model,
    /// The moving average under `ema`; an error where there is none.
    Ema,
}

/// What to do about a file that was cut short.
pub(super) const INCOMPLETE: &str = "the file looks incomplete: download or copy it again";

/// The error for [`WeightsChoice::Ema`] where there is no `ema`.
pub(super) fn no_ema(path: &Path, found: &str) -> Error {
    Error::Mismatch {
        what: format!("{}: weights", path.display()),
        expected: "a moving average under `ema`".into(),
        found: found.into(),
        hint: "leave out --weights ema".into(),
    }
}

/// Maps a whole file.
pub(super) fn map(path: &Path) -> Result<Arc<Mmap>> {
    let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
    if !metadata.is_file() {
        // Opening a pipe would wait for a writer forever.
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(Error::io("open", path)(error));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the map is private to us and read-only, and its bytes are only ever read as numbers, for
    // which every bit pattern is valid. Another process that shrinks the file meanwhile ends this one with
    // SIGBUS and one that rewrites it changes weights; `Checkpoint::open` says that neither may happen.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    Ok(Arc::new(map))
}

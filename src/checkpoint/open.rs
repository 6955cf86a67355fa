//! Opening a checkpoint: what kind of file it is, told by its first bytes and never by its name.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::{Checkpoint, Contents, hub, safetensors, torch};
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

impl Checkpoint {
    /// Opens a safetensors file, a PyTorch zip file (`.pt`, `.pth`, `.bin`) or a Hub folder.
    ///
    /// The file is mapped: opening reads headers alone, whatever the size, and the tensors' bytes stay
    /// in the file. It must not be changed while the checkpoint is open.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system refuses; [`Error::Format`] when the file is none of these, is cut
    /// short, or contradicts itself; [`Error::Mismatch`] when `choice` asks for weights that it lacks.
    pub fn open(path: &Path, choice: WeightsChoice) -> Result<Self> {
        let contents = if path.is_dir() { hub::read(path, choice)? } else { read_file(path, choice)? };
        Ok(Self::new(path.to_path_buf(), contents))
    }
}

/// Reads one file of either format.
pub(super) fn read_file(path: &Path, choice: WeightsChoice) -> Result<Contents> {
    let map = map(path)?;
    let head = &map[..map.len().min(16)];
    let format = |problem: &str, hint: &str| Error::Format {
        path: path.to_path_buf(),
        format: "checkpoint",
        problem: problem.into(),
        hint: hint.into(),
    };
    if head.is_empty() {
        return Err(format("the file is empty", INCOMPLETE));
    }
    if head.starts_with(b"PK") {
        return torch::read(path, &map, choice);
    }
    // The pickle of torch's format before 1.6 opens with a protocol and a magic number.
    if head.len() > 2 && head[0] == 0x80 && (2..=5).contains(&head[1]) {
        return Err(format(
            "a PyTorch file in the format from before 1.6, a pickle without the zip around it",
            "re-save it with a current PyTorch: torch.save(torch.load(path, map_location=\"cpu\"), new_path)",
        ));
    }
    if map.starts_with(b"version https://git-lfs") {
        return Err(format("a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"));
    }
    if head.get(8) == Some(&b'{') {
        let contents = safetensors::read(path, &map)?;
        if choice == WeightsChoice::Ema {
            return Err(no_ema(path, "one set of weights"));
        }
        return Ok(contents);
    }
    Err(format(
        &format!("neither safetensors nor a PyTorch zip; it starts with {:02x?}", &head[..head.len().min(8)]),
        "expected model.safetensors, a .pt file saved by PyTorch 1.6 or later, or a folder with model.safetensors",
    ))
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
fn map(path: &Path) -> Result<Arc<Mmap>> {
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

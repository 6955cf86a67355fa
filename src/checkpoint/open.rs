//! Opening a checkpoint: a file, a folder, or what is built in.

use std::path::Path;

use super::file::WeightsChoice;
use super::format::read_file;
use super::{Bytes, Checkpoint, hub, safetensors};
use crate::Result;

impl Checkpoint {
    /// Opens a safetensors file, a PyTorch zip file (`.pt`, `.pth`, `.bin`) or a Hub folder.
    ///
    /// The file is mapped: opening reads headers alone, whatever the size, and the tensors' bytes stay
    /// in the file. It must not be changed while the checkpoint is open.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when the system refuses; [`crate::Error::Format`] when the file is none of these, is cut
    /// short, or contradicts itself; [`crate::Error::Mismatch`] when `choice` asks for weights that it lacks.
    pub fn open(path: &Path, choice: WeightsChoice) -> Result<Self> {
        let contents = if path.is_dir() { hub::read(path, choice)? } else { read_file(path, choice)? };
        Ok(Self::new(path.to_path_buf(), contents))
    }

    /// Reads a safetensors file that is part of the program, with its `config.json` where it has one.
    /// `path` names it in errors.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Format`] when it contradicts itself.
    pub fn built_in(path: &Path, safetensors: &'static [u8], config: Option<&[u8]>) -> Result<Self> {
        let mut contents = safetensors::read(path, &Bytes::Static(safetensors))?;
        if let Some(config) = config {
            contents.metadata.extend(hub::configuration(path, config)?);
        }
        Ok(Self::new(path.to_path_buf(), contents))
    }
}

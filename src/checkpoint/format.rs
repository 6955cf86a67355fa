//! What kind of file a checkpoint is, told by its first bytes and never by its name.

use std::path::Path;

use super::file::{INCOMPLETE, WeightsChoice, map, no_ema};
use super::{Bytes, Contents, safetensors, torch};
use crate::{Error, Result};

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
        let contents = safetensors::read(path, &Bytes::Mapped(map))?;
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

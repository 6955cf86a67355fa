//! Reads safetensors: a length, a JSON header, then the tensors' bytes without gaps.
//!
//! The `safetensors` crate parses the header and checks that the tensors follow one another and are as
//! long as their shapes say; here the header is held against the file's true length.

use std::path::Path;
use std::sync::Arc;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use memmap2::Mmap;

use super::file::INCOMPLETE;
use super::{Bytes, Contents, DType, Tensor};
use crate::{Error, Result};

/// Bytes of the header's length, in front of it.
const LENGTH: usize = 8;

/// The longest header that we parse, as in the format's reference reader.
const MAX_HEADER: u64 = 100_000_000;

/// Reads the header; the tensors point into `map`.
pub(super) fn read(path: &Path, map: &Arc<Mmap>) -> Result<Contents> {
    let fault = |problem: String, hint: &str| Error::Format {
        path: path.to_path_buf(),
        format: "safetensors",
        problem,
        hint: hint.into(),
    };
    let Some((length, rest)) = map.split_first_chunk::<LENGTH>() else {
        return Err(fault(format!("expected at least {LENGTH} bytes, found {}", map.len()), INCOMPLETE));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(fault(format!("expected a header of at most {MAX_HEADER} bytes, found {length}"), ""));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        let problem = format!("expected a header of {length} bytes, found {} bytes in the file", rest.len());
        return Err(fault(problem, INCOMPLETE));
    };
    let header: Metadata =
        serde_json::from_slice(header).map_err(|error| fault(format!("its header cannot be read: {error}"), ""))?;
    if header.data_len() != data.len() {
        let hint = if header.data_len() > data.len() { INCOMPLETE } else { "" };
        let problem =
            format!("the header promises {} bytes of tensors, the file has {}", header.data_len(), data.len());
        return Err(fault(problem, hint));
    }

    let mut contents = Contents::default();
    let start = LENGTH + length as usize;
    for (name, info) in header.tensors() {
        let Some(dtype) = dtype(info.dtype) else {
            contents.skipped.insert(name, format!("a tensor of type {:?}", info.dtype));
            continue;
        };
        let bytes = Bytes::Mapped(map.clone());
        let tensor = Tensor::contiguous(dtype, info.shape.clone(), bytes, start + info.data_offsets.0)
            .ok_or_else(|| fault(format!("tensor `{name}` {:?} lies outside of the file", info.shape), ""))?;
        contents.tensors.insert(name, tensor);
    }
    contents.metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(contents)
}

/// Our name for a type, where a weight can have it.
fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 => Some(DType::I64),
        _ => None,
    }
}

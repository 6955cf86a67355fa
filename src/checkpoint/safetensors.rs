//! Reads safetensors: a length, a JSON header, then the tensors' bytes without gaps.
//!
//! The `safetensors` crate parses the header and checks that the tensors follow one another and are as
//! long as their shapes say; here the header is held against the file's true length.

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};

use super::file::INCOMPLETE;
use super::{Bytes, Contents, DType, Tensor};
use crate::{Error, Result};

/// Bytes of the header's length, in front of it.
const LENGTH: usize = 8;

/// The longest header that we parse, as in the format's reference reader.
const MAX_HEADER: u64 = 100_000_000;

/// What to do about a header that cannot be true.
const DAMAGED: &str = "the file is damaged: download or write it again";

/// Reads the header; the tensors point into `file`.
pub(super) fn read(path: &Path, file: &Bytes) -> Result<Contents> {
    let fault = |problem: String, hint: &str| Error::Format {
        path: path.to_path_buf(),
        format: "safetensors",
        problem,
        hint: hint.into(),
    };
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(fault(format!("expected at least {LENGTH} bytes, found {}", file.len()), INCOMPLETE));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(fault(format!("expected a header of at most {MAX_HEADER} bytes, found {length}"), DAMAGED));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        let problem = format!("expected a header of {length} bytes, found {} bytes in the file", rest.len());
        return Err(fault(problem, INCOMPLETE));
    };
    let header: Metadata = serde_json::from_slice(header).map_err(|error| {
        let problem = wrong_tensor(header).unwrap_or_else(|| error.to_string());
        fault(format!("its header cannot be read: {problem}"), DAMAGED)
    })?;
    if header.data_len() != data.len() {
        let hint = if header.data_len() > data.len() { INCOMPLETE } else { DAMAGED };
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
        let tensor = Tensor::contiguous(dtype, info.shape.clone(), file.clone(), start + info.data_offsets.0)
            .ok_or_else(|| fault(format!("tensor `{name}` {:?} lies outside of the file", info.shape), DAMAGED))?;
        contents.tensors.insert(name, tensor);
    }
    contents.metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(contents)
}

/// The first tensor by name of a refused header whose shape asks for other bytes than it is given.
fn wrong_tensor(header: &[u8]) -> Option<String> {
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    entries.into_iter().find_map(|(name, entry)| {
        // The metadata is no tensor, and neither is what cannot be read as one.
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = serde_json::from_value(entry).ok()?;
        let elements = shape.iter().try_fold(1u128, |product, &extent| product.checked_mul(extent as u128));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u128));
        let found = end.checked_sub(start);
        if bits.is_some() && bits == found.map(|bytes| 8 * bytes as u128) {
            return None;
        }
        let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        let expected =
            bits.map_or("more bytes than can be counted".into(), |bits| format!("{} bytes", bits.div_ceil(8)));
        let found = found.map_or("an end before the start".into(), |bytes| format!("{bytes} bytes"));
        Some(format!(
            "tensor `{name}`: expected {expected} for {shape:?} of {dtype:?}, found {found} ({start} to {end})"
        ))
    })
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

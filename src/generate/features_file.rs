//! Features in a file: `caption_embeddings` (texts, places, channels) and `caption_mask` (texts, places).

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::TextFeatures;
use crate::{Error, Result};

impl TextFeatures {
    /// Reads features that another program computed: a safetensors file with `caption_embeddings` of f32, f16 or
    /// bf16, and `caption_mask` of integers or booleans, 1 where a place is valid. Whether padding stands before
    /// or behind a text does not matter.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |problem: String| Error::Format {
            path: path.to_path_buf(),
            format: "text features",
            problem,
            hint: "a safetensors file with `caption_embeddings` (texts, places, channels) and `caption_mask` \
                   (texts, places)"
                .into(),
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let tensor = |name: &str| file.tensor(name).map_err(|_| wrong(format!("it has no tensor `{name}`")));
        let (embeddings, mask) = (tensor("caption_embeddings")?, tensor("caption_mask")?);
        let &[texts, places, width] = embeddings.shape() else {
            return Err(wrong(format!("`caption_embeddings` has shape {:?}", embeddings.shape())));
        };
        if mask.shape() != [texts, places] || embeddings.data().is_empty() {
            let (mask, embeddings) = (mask.shape(), embeddings.shape());
            return Err(wrong(format!("`caption_mask` has shape {mask:?}, `caption_embeddings` {embeddings:?}")));
        }
        let of_type = |name: &str, dtype| wrong(format!("`{name}` has type {dtype:?}"));
        let values = floats(&embeddings).ok_or_else(|| of_type("caption_embeddings", embeddings.dtype()))?;
        let mask = flags(&mask).ok_or_else(|| of_type("caption_mask", mask.dtype()))?;
        let text = |(text, (values, mask)): (usize, (&[f32], &[bool]))| {
            let valid = values.chunks_exact(width).zip(mask).filter(|(_, valid)| **valid);
            let values: Vec<f32> = valid.flat_map(|(vector, _)| vector).copied().collect();
            if values.is_empty() {
                return Err(wrong(format!("text {text} has no valid place in `caption_mask`")));
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(wrong(format!("text {text} has values in `caption_embeddings` that are no numbers")));
            }
            Ok(Self::new(width, values))
        };
        values.chunks_exact(places * width).zip(mask.chunks_exact(places)).enumerate().map(text).collect()
    }
}

fn floats(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Some(chunks(data).map(f32::from_le_bytes).collect()),
        Dtype::F16 => Some(chunks(data).map(|b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(chunks(data).map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

fn flags(tensor: &TensorView<'_>) -> Option<Vec<bool>> {
    let size = match tensor.dtype() {
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => 1,
        Dtype::I32 | Dtype::U32 => 4,
        Dtype::I64 | Dtype::U64 => 8,
        _ => return None,
    };
    Some(tensor.data().chunks_exact(size).map(|bytes| bytes.iter().any(|&byte| byte != 0)).collect())
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.chunks_exact(N).map(|bytes| bytes.try_into().expect("N bytes"))
}

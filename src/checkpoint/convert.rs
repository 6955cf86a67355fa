//! Converts any checkpoint to safetensors with its configuration in the metadata.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};

use super::{Checkpoint, DType, Entry, Tensor, write_safetensors};
use crate::config::{ModelConfig, named_image_size};
use crate::{Error, Result};

/// How to convert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The type of all tensors; `None` keeps each as it is. Never [`DType::I64`].
    pub dtype: Option<DType>,
    /// The number of heads, where the checkpoint does not tell.
    pub n_head: Option<usize>,
}

/// What [`convert`] wrote.
#[derive(Clone, Debug)]
pub struct Converted {
    pub config: ModelConfig,
    /// A line for the user, when something had to be guessed; the guess is now in the file.
    pub note: Option<String>,
    /// Length of the file.
    pub bytes: u64,
}

/// Entries that go along when the input has them: what the image size and the classes' names are told by.
const CARRIED: [&str; 3] = ["image_size", "block_size", "class_names"];

/// Elements that are converted at a time.
const CHUNK: usize = 1 << 16;

/// Writes the model's tensors, and nothing that training left beside them, as safetensors to `out`.
///
/// The metadata has the detected configuration ([`ModelConfig::metadata`]) and the input's `image_size`,
/// or the one in its name, and `class_names` as a JSON list. Reading the file gives the same configuration.
///
/// # Errors
///
/// Those of [`ModelConfig::detect`]; [`Error::Option`] for a type that weights cannot have; [`Error::Io`]
/// when the file cannot be written. Nothing is left behind then.
pub fn convert(input: &Checkpoint, out: &Path, options: &ConvertOptions) -> Result<Converted> {
    if options.dtype == Some(DType::I64) {
        return Err(Error::Option {
            option: "dtype",
            value: DType::I64.name().into(),
            expected: "f32, f16 or bf16".into(),
            hint: String::new(),
        });
    }
    let (config, note) = ModelConfig::detect(input, options.n_head)?;
    let mut metadata = config.metadata();
    for name in CARRIED {
        if let Some(text) = input.metadata().get(name) {
            metadata.insert(name.into(), text.clone());
        }
    }
    if let (ModelConfig::Gpt(_), Some(size)) = (&config, named_image_size(input.path()))
        && !metadata.contains_key("image_size")
        && !metadata.contains_key("block_size")
    {
        metadata.insert("image_size".into(), size.to_string());
    }
    let tensors = input.tensors();
    let entries: Vec<Entry> = config
        .tensors()
        .into_iter()
        .map(|spec| {
            let dtype = options.dtype.unwrap_or(tensors[&spec.name].dtype());
            Entry { name: spec.name, dtype, shape: spec.shape }
        })
        .collect();
    let bytes =
        write_safetensors(out, &entries, &metadata, |entry, out| write(&tensors[&entry.name], entry.dtype, out))?;
    Ok(Converted { config, note, bytes })
}

/// Writes a tensor's elements as `dtype`, in index order, without a second copy of a large one.
fn write(tensor: &Tensor, dtype: DType, out: &mut dyn Write) -> io::Result<()> {
    let Some(bytes) = tensor.bytes() else {
        // Every weight type is exact in f32.
        let values = tensor.to_f32();
        return values.chunks(CHUNK).try_for_each(|chunk| write_f32(chunk, dtype, out));
    };
    if tensor.dtype() == dtype {
        return out.write_all(bytes);
    }
    let mut values = Vec::with_capacity(CHUNK);
    for chunk in bytes.chunks(CHUNK * tensor.dtype().size()) {
        values.clear();
        match tensor.dtype() {
            DType::F32 => values.extend(chunk.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            DType::F16 => values.extend(chunk.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            DType::BF16 => values.extend(chunk.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            DType::I64 => values.extend(chunk.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32)),
        }
        write_f32(&values, dtype, out)?;
    }
    Ok(())
}

fn write_f32(values: &[f32], dtype: DType, out: &mut dyn Write) -> io::Result<()> {
    let bytes: Vec<u8> = match dtype {
        DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::I64 => values.iter().flat_map(|&x| (x as i64).to_le_bytes()).collect(),
    };
    out.write_all(&bytes)
}

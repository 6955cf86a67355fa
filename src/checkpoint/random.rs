//! Random weights of given shapes, for benches and tests: quick, seeded, and the same on any machine and
//! with any number of threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Bytes, Checkpoint, DType, Entry, Tensor, write_safetensors};
use crate::Result;

/// Elements that one thread makes at a time.
const CHUNK: usize = 1 << 16;

/// Elements that are in memory at a time when writing.
const PART: usize = 1 << 23;

/// A checkpoint of random weights in memory; `path` names it in errors.
///
/// Norms' weights are 1, biases 0, convolutions have a variance of 1 / (inputs of one output), and all else
/// has a standard deviation of 0.02, as LlamaGen starts its training.
pub fn random(
    path: impl Into<PathBuf>,
    entries: &[Entry],
    metadata: BTreeMap<String, String>,
    seed: u64,
) -> Checkpoint {
    let tensor = |entry: &Entry| {
        let mut bytes = vec![0; entry.bytes()];
        Filler::new(entry, seed).fill(0, &mut bytes);
        let bytes = Bytes::Owned(Arc::new(bytes));
        let tensor = Tensor::contiguous(entry.dtype, entry.shape.clone(), bytes, 0).expect("the bytes fill the shape");
        (entry.name.clone(), tensor)
    };
    Checkpoint::from_tensors(path, entries.iter().map(tensor).collect(), metadata)
}

/// Writes the same weights as [`random`] to a safetensors file, without ever holding them; its length in bytes.
///
/// # Errors
///
/// Those of [`write_safetensors`].
pub fn write_random(path: &Path, entries: &[Entry], metadata: &BTreeMap<String, String>, seed: u64) -> Result<u64> {
    let mut buffer = Vec::new();
    write_safetensors(path, entries, metadata, |entry, out| {
        let filler = Filler::new(entry, seed);
        for first in (0..entry.len()).step_by(PART) {
            let count = PART.min(entry.len() - first);
            buffer.resize(count * entry.dtype.size(), 0);
            filler.fill(first, &mut buffer);
            out.write_all(&buffer)?;
        }
        Ok(())
    })
}

/// The elements of one tensor, each a function of seed, name and index.
struct Filler {
    dtype: DType,
    values: Values,
}

enum Values {
    Constant(f32),
    Normal { std: f32, key: u64 },
}

impl Filler {
    fn new(entry: &Entry, seed: u64) -> Self {
        let key = entry.name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)));
        let values = match entry.shape[..] {
            [_] if entry.name.ends_with(".bias") => Values::Constant(0.0),
            [_] => Values::Constant(1.0),
            [_, input, height, width] => Values::Normal { std: ((input * height * width) as f32).sqrt().recip(), key },
            _ => Values::Normal { std: 0.02, key },
        };
        Self { dtype: entry.dtype, values }
    }

    /// Writes the elements from `first` on.
    fn fill(&self, first: usize, bytes: &mut [u8]) {
        match self.dtype {
            DType::F32 => self.fill_with(first, bytes, f32::to_le_bytes),
            DType::F16 => self.fill_with(first, bytes, |x| f16::from_f32(x).to_le_bytes()),
            DType::BF16 => self.fill_with(first, bytes, |x| bf16::from_f32(x).to_le_bytes()),
            DType::I64 => self.fill_with(first, bytes, |x| (x as i64).to_le_bytes()),
        }
    }

    fn fill_with<const N: usize>(&self, first: usize, bytes: &mut [u8], encode: impl Fn(f32) -> [u8; N] + Sync) {
        let elements = bytes.as_chunks_mut::<N>().0;
        elements.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, elements)| match self.values {
            Values::Constant(value) => elements.fill(encode(value)),
            Values::Normal { std, key } => {
                let start = key.wrapping_add((first + chunk * CHUNK) as u64);
                for (i, element) in (0u64..).zip(elements) {
                    *element = encode(std * normal(mix(start.wrapping_add(i))));
                }
            }
        });
    }
}

/// Roughly standard normal: the centred sum of the four 16-bit parts, whose deviation is 65536 / sqrt(3).
fn normal(bits: u64) -> f32 {
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (sum as f32 - 131_070.0) * (1.732_050_8 / 65536.0)
}

/// SplitMix64's output function: every bit depends on every bit of the counter.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

//! Writes safetensors: streaming, under a temporary name, and aligned so that tensors can be used in place.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::DType;
use crate::Result;
use crate::config::TensorSpec;
use crate::files::write_atomically;

/// One tensor to be written or made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Entry {
    /// A model's tensors, all of one type.
    pub fn all(specs: Vec<TensorSpec>, dtype: DType) -> Vec<Self> {
        specs.into_iter().map(|TensorSpec { name, shape }| Self { name, dtype, shape }).collect()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }
}

/// Tensors start at multiples of this where their sizes allow it: a cache line, and the widest vector load.
const ALIGNMENT: usize = 64;

/// Writes a safetensors file; `fill` writes the little-endian bytes of one entry, [`Entry::bytes`] many.
/// Returns the file's length in bytes.
///
/// The file gets its name when it is complete: a failure leaves `path` as it was and nothing beside it.
///
/// # Errors
///
/// [`crate::Error::Io`] when the folder cannot be written to, the disk is full, or `fill` fails.
pub fn write_safetensors(
    path: &Path,
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
    mut fill: impl FnMut(&Entry, &mut dyn Write) -> io::Result<()>,
) -> Result<u64> {
    let entries = in_file_order(entries);
    let header = header(&entries, metadata);
    let mut length = 0;
    write_atomically(path, |out| {
        let mut out = Counted { out, written: 0 };
        out.write_all(&header)?;
        for entry in &entries {
            let before = out.written;
            fill(entry, &mut out)?;
            let written = out.written - before;
            if written != entry.bytes() as u64 {
                let problem = format!("`{}`: expected {} bytes, found {written}", entry.name, entry.bytes());
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
        length = out.written;
        Ok(())
    })?;
    Ok(length)
}

/// Entries by how many factors of two their sizes have, up to [`ALIGNMENT`]: each then starts at a multiple
/// of every later one's factors, so no tensor is less aligned than its own size asks for.
fn in_file_order(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.bytes().trailing_zeros().min(ALIGNMENT.trailing_zeros())));
    entries
}

/// A file's header for these entries, one behind the other.
fn header(entries: &[Entry], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut map = serde_json::Map::new();
    if !metadata.is_empty() {
        map.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for entry in entries {
        let end = start + entry.bytes();
        let dtype = entry.dtype.name().to_uppercase();
        map.insert(entry.name.clone(), json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": [start, end] }));
        start = end;
    }
    framed_header(&serde_json::Value::Object(map))
}

/// Length and JSON, padded with spaces so that the tensors start aligned.
pub(crate) fn framed_header(header: &serde_json::Value) -> Vec<u8> {
    let mut text = header.to_string().into_bytes();
    let length = (8 + text.len()).next_multiple_of(ALIGNMENT) - 8;
    text.resize(length, b' ');
    [&(length as u64).to_le_bytes()[..], &text].concat()
}

/// A writer that knows how much it wrote.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

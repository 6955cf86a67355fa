//! The zip around the pickle: entries are stored, not compressed, so that they can be used in place.

use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::{Fault, PLAIN};
use crate::checkpoint::file::INCOMPLETE;

/// The longest pickle that we read. Those of the largest models, training state included, have a few MB.
const MAX_PROGRAM: usize = 32 << 20;

/// An open zip whose entries are ranges of the file.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder inside of the zip that holds everything, with its slash; may be empty.
    prefix: String,
}

impl<'a> Archive<'a> {
    /// Reads the central directory and finds the pickle's folder.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| Fault::with_hint(format!("its zip directory cannot be read: {error}"), INCOMPLETE))?;
        let mut prefixes = zip
            .file_names_raw()
            .filter_map(|name| std::str::from_utf8(name).ok()?.strip_suffix("data.pkl"))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
        let Some(prefix) = prefixes.next().map(str::to_string) else {
            return Err(Fault::with_hint("expected an entry `data.pkl` in the zip, found none", PLAIN));
        };
        if let Some(second) = prefixes.next() {
            return Err(Fault::new(format!("expected one pickle, found `{prefix}data.pkl` and `{second}data.pkl`")));
        }
        drop(prefixes);
        Ok(Self { bytes, zip, prefix })
    }

    /// The pickle's bytes, after a look at what stands beside it.
    pub(super) fn program(&mut self) -> Result<&'a [u8], Fault> {
        if self.has("constants.pkl") {
            return Err(Fault::with_hint("a TorchScript program, not a dict of weights", PLAIN));
        }
        if self.has("byteorder") {
            let range = self.entry("byteorder")?;
            let order = &self.bytes[range];
            if order != b"little" {
                let order = String::from_utf8_lossy(&order[..order.len().min(16)]);
                return Err(Fault::with_hint(
                    format!("expected numbers in byte order `little`, found `{order}`"),
                    "re-save it on a little-endian machine",
                ));
            }
        }
        let range = self.entry("data.pkl")?;
        if range.len() > MAX_PROGRAM {
            let problem = format!("expected `data.pkl` of at most {MAX_PROGRAM} bytes, found {}", range.len());
            return Err(Fault::with_hint(problem, PLAIN));
        }
        Ok(&self.bytes[range])
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.prefix)).is_some()
    }

    /// Where in the file the bytes of an entry lie.
    pub(super) fn entry(&mut self, name: &str) -> Result<Range<usize>, Fault> {
        let full = format!("{}{name}", self.prefix);
        let index = self
            .zip
            .index_for_name(&full)
            .ok_or_else(|| Fault::with_hint(format!("expected an entry `{full}`, found none"), INCOMPLETE))?;
        let entry = self
            .zip
            .by_index_raw(index)
            .map_err(|error| Fault::with_hint(format!("entry `{full}` cannot be read: {error}"), INCOMPLETE))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let how = if entry.encrypted() { "encrypted".into() } else { entry.compression().to_string() };
            return Err(Fault::with_hint(
                format!("entry `{full}`: expected stored bytes, found {how} ones"),
                "unpack it and zip it again without compression (zip -0 -r), or re-save it with PyTorch",
            ));
        }
        if entry.size() != entry.compressed_size() {
            return Err(Fault::new(format!(
                "entry `{full}`: expected as many stored bytes as its size {}, found {}",
                entry.size(),
                entry.compressed_size()
            )));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(usize::try_from(entry.size()).ok()?)?));
        match range {
            Some(range) if range.end <= self.bytes.len() => Ok(range),
            _ => Err(Fault::with_hint(
                format!("entry `{full}` of {} bytes reaches beyond the file's {}", entry.size(), self.bytes.len()),
                INCOMPLETE,
            )),
        }
    }
}

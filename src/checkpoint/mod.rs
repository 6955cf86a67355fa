//! Checkpoints: named tensors in files that are mapped, never copied.
//!
//! Reads safetensors, PyTorch `.pt` files (a zip with a pickle, read without running anything in it)
//! and the Hub's folders; writes safetensors. Depends on nothing of the crate but [`crate::Error`] and,
//! for the configuration that [`convert`] writes along, [`crate::config`].
//!
//! ```
//! use smalti::checkpoint::{Checkpoint, DType, Entry, WeightsChoice, write_random};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("weights.safetensors");
//! let entry = Entry { name: "norm.weight".into(), dtype: DType::BF16, shape: vec![768] };
//! write_random(&path, &[entry], &Default::default(), 0)?;
//!
//! let checkpoint = Checkpoint::open(&path, WeightsChoice::Model)?;
//! assert_eq!(checkpoint.tensors()["norm.weight"].shape(), [768]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod convert;
mod file;
mod format;
mod hub;
mod open;
mod random;
mod safetensors;
mod tensor;
mod torch;
mod write;

pub use convert::{ConvertOptions, Converted, convert};
pub use file::WeightsChoice;
pub use random::{random, write_random};
pub use tensor::{Bytes, DType, Tensor};
pub(crate) use write::framed_header;
pub use write::{Entry, write_safetensors};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Named tensors and the text that came with them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    id: u64,
    path: PathBuf,
    contents: Contents,
}

/// What a reader finds in a file.
#[derive(Clone, Debug, Default)]
struct Contents {
    tensors: BTreeMap<String, Tensor>,
    /// Entries that are there but are no tensor of ours: the name, and what they are.
    skipped: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A checkpoint that never was a file: built in, made up, or made by a test. `path` names it in errors.
    pub fn from_tensors(
        path: impl Into<PathBuf>,
        tensors: BTreeMap<String, Tensor>,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        Self::new(path.into(), Contents { tensors, skipped: BTreeMap::new(), metadata })
    }

    fn new(path: PathBuf, contents: Contents) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), path, contents }
    }

    /// Tells open checkpoints apart; clones share it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file, or the name that stands for it in errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.contents.tensors
    }

    /// One tensor.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.contents.tensors.get(name)
    }

    /// Entries that the file has beside its tensors, each with what it is: numbers, nested dicts,
    /// tensors of types that no weight has.
    pub fn skipped(&self) -> &BTreeMap<String, String> {
        &self.contents.skipped
    }

    /// Text beside the tensors: safetensors' `__metadata__`, or `config.json`'s entries.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }
}

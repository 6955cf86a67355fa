//! Files put together by hand: zips of any method, pickles of any opcodes, safetensors of any header.

use std::path::{Path, PathBuf};

use smalti::Error;
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use tempfile::TempDir;

/// A file of the repository's tests.
pub fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file)
}

pub fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, WeightsChoice::Model).unwrap_or_else(|error| panic!("{error}"))
}

/// Bytes in a file of their own.
pub struct Scratch {
    /// Lives as long as the file.
    _folder: TempDir,
    pub path: PathBuf,
}

impl Scratch {
    pub fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).expect("a temporary file");
        Self { _folder: folder, path }
    }

    pub fn open(&self) -> Result<Checkpoint, Error> {
        Checkpoint::open(&self.path, WeightsChoice::Model)
    }
}

/// Opens bytes that are no checkpoint; what the user would read.
pub fn refusal(bytes: &[u8]) -> String {
    let scratch = Scratch::new(bytes);
    let error = scratch.open().expect_err("a file that must be refused was opened");
    let text = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
    assert!(text.contains(&scratch.path.display().to_string()), "the file's name is missing: {text}");
    text
}

/// Asserts that a text holds every part.
#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
}

/// A zip of (name, method, bytes), byte by byte, so that it can lie.
pub fn zip(entries: &[(&str, u16, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for &(name, method, bytes) in entries {
        let start = out.len() as u32;
        let crc = crc32(bytes);
        let mut common = Vec::new();
        for half in [20, 0, method, 0, 0x21] {
            common.extend_from_slice(&u16::to_le_bytes(half));
        }
        for word in [crc, bytes.len() as u32, bytes.len() as u32] {
            common.extend_from_slice(&word.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0; 2]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&start.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for half in [entries.len() as u16; 2] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    for word in [directory.len() as u32, start] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[0; 2]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A PyTorch file of a pickle and one storage, `0`.
pub fn torch(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", 0, pickle), ("a/byteorder", 0, b"little"), ("a/data/0", 0, storage)])
}

/// A safetensors file of a header as it stands.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A pickle, opcode by opcode.
#[derive(Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    pub fn op(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.op("X").op((text.len() as u32).to_le_bytes()).op(text)
    }

    pub fn int(self, value: i64) -> Self {
        self.op([0x8a, 8]).op(value.to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n"))
    }

    pub fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.op("("), |pickle, &value| pickle.int(value)).op("t")
    }

    /// A view of the first `len` elements that storage `0` promises.
    pub fn tensor(self, class: &str, len: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").op("((");
        let pickle = pickle.text("storage").global("torch", class).text("0").text("cpu").int(len).op("tQ");
        pickle.int(offset).ints(shape).ints(strides).op(b"\x89}tR")
    }

    pub fn end(self) -> Vec<u8> {
        self.op(".").0
    }
}

/// A PyTorch file of one tensor, `x`, of f32.
pub fn torch_of_one(len: i64, offset: i64, shape: &[i64], strides: &[i64], storage: &[u8]) -> Vec<u8> {
    let pickle = Pickle::new().op("}").text("x").tensor("FloatStorage", len, offset, shape, strides).op("s").end();
    torch(&pickle, storage)
}

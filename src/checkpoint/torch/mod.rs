//! Reads PyTorch's `.pt` files: a zip of a pickle, `data.pkl`, and one stored entry per storage.
//!
//! | file | does |
//! |---|---|
//! | `archive` | finds entries in the zip and where their bytes lie in the file |
//! | `pickle` | the machine that reads `data.pkl`; it builds values and calls nothing |
//! | `stack` | its stack |
//! | `value` | the values it builds |
//! | `calls` | what becomes of the calls that the pickle asks for |
//! | `weights` | which dict holds the weights; tensors from storages |
//!
//! A pickle is a program, so a checkpoint from a stranger is a program from a stranger. This machine knows
//! how tensors, dicts and plain values are put together; whatever else the program would call or build
//! becomes an inert object, which is an error only where a weight depends on it.

mod archive;
mod calls;
mod pickle;
mod stack;
mod value;
mod weights;

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::Contents;
use super::file::WeightsChoice;
use crate::{Error, Result};

/// What is wrong with a file, before its path is known.
#[derive(Debug)]
struct Fault {
    problem: String,
    hint: &'static str,
}

impl Fault {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: "" }
    }

    fn with_hint(problem: impl Into<String>, hint: &'static str) -> Self {
        Self { problem: problem.into(), hint }
    }

    fn at(self, path: &Path) -> Error {
        // Names from a hostile file can be long, or drive a terminal.
        const MOST: usize = 1000;
        Error::Format {
            path: path.to_path_buf(),
            format: "PyTorch",
            problem: self.problem.chars().take(MOST).map(value::printable).collect(),
            hint: self.hint.to_string(),
        }
    }
}

/// The cure for every file that holds more than weights.
const PLAIN: &str = "re-save the weights alone: torch.save({\"model\": model.state_dict()}, path)";

/// Reads the pickle; the tensors point into `map`.
pub(super) fn read(path: &Path, map: &Arc<Mmap>, choice: WeightsChoice) -> Result<Contents> {
    let fault = |fault: Fault| fault.at(path);
    let mut archive = archive::Archive::open(map).map_err(fault)?;
    let program = archive.program().map_err(fault)?;
    let (values, top) = pickle::read(program).map_err(fault)?;
    let dict = weights::choose(path, &values, top, choice)?;
    weights::collect(&values, dict, &mut archive, map).map_err(fault)
}

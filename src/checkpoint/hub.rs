//! Reads a folder as the Hub has it: `model.safetensors` or `pytorch_model.bin`, whole or in shards, and
//! `config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde_json::Value;

use super::file::{INCOMPLETE, WeightsChoice};
use super::format::read_file;
use super::{Contents, Tensor};
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
const CONFIG: &str = "config.json";

/// JSON files are read whole; a longer one is not what it claims to be.
const MAX_JSON: u64 = 64 << 20;

/// Reads the folder's weights, and its configuration as metadata.
pub(super) fn read(folder: &Path, choice: WeightsChoice) -> Result<Contents> {
    let mut contents = if folder.join(SINGLE).is_file() {
        read_file(&folder.join(SINGLE), choice)?
    } else if folder.join(INDEX).is_file() {
        read_shards(folder, INDEX, choice)?
    } else if folder.join(TORCH).is_file() {
        read_file(&folder.join(TORCH), choice)?
    } else if folder.join(TORCH_INDEX).is_file() {
        read_shards(folder, TORCH_INDEX, choice)?
    } else {
        return Err(Error::Format {
            path: folder.to_path_buf(),
            format: "Hub folder",
            problem: format!("expected {SINGLE} or {TORCH} in it, or the index of one in shards, found none"),
            hint: "name the checkpoint file itself".into(),
        });
    };
    let config = folder.join(CONFIG);
    if config.is_file() {
        contents.metadata.extend(scalars(&read_json(&config)?));
    }
    Ok(contents)
}

/// Reads every shard that the index names and checks that each tensor is where the index says.
fn read_shards(folder: &Path, index: &str, choice: WeightsChoice) -> Result<Contents> {
    let path = folder.join(index);
    let fault = |problem: String, hint: &str| Error::Format {
        path: path.clone(),
        format: "shard index",
        problem,
        hint: hint.into(),
    };
    let index = read_json(&path)?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| fault("expected an object `weight_map`, found none".into(), ""))?;
    let mut shard_of = BTreeMap::new();
    for (name, shard) in map {
        let shard = shard.as_str().filter(|shard| is_plain_name(shard)).ok_or_else(|| {
            fault(format!("tensor `{name}`: expected the name of a file in this folder, found {shard}"), "")
        })?;
        shard_of.insert(name.as_str(), shard);
    }
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut contents = Contents::default();
    for shard in shard_of.values().copied().collect::<BTreeSet<_>>() {
        let part = read_file(&folder.join(shard), choice)?;
        for (name, tensor) in part.tensors {
            // The index decides, so that a stray copy in another shard cannot.
            if shard_of.get(name.as_str()) == Some(&shard) {
                tensors.insert(name, tensor);
            }
        }
        contents.skipped.extend(part.skipped);
        contents.metadata.extend(part.metadata);
    }
    for (name, shard) in shard_of {
        if !tensors.contains_key(name) && !contents.skipped.contains_key(name) {
            return Err(fault(format!("expected tensor `{name}` in {shard}, found no such tensor"), INCOMPLETE));
        }
    }
    contents.tensors = tensors;
    Ok(contents)
}

/// Whether a shard's name stays within its folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

fn read_json(path: &Path) -> Result<Value> {
    let length = std::fs::metadata(path).map_err(Error::io("open", path))?.len();
    if length > MAX_JSON {
        return Err(json_fault(path, format!("expected at most {MAX_JSON} bytes, found {length}")));
    }
    parse_json(path, &std::fs::read(path).map_err(Error::io("read", path))?)
}

fn parse_json(path: &Path, text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|error| json_fault(path, error.to_string()))
}

fn json_fault(path: &Path, problem: String) -> Error {
    Error::Format { path: path.to_path_buf(), format: "JSON", problem, hint: String::new() }
}

/// The entries of a `config.json` that become metadata.
pub(super) fn configuration(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
    Ok(scalars(&parse_json(path, text)?))
}

/// The configuration's scalar entries as text, and `class_names` as a JSON list.
fn scalars(config: &Value) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Array(_) if name == "class_names" => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.clone(), text))
        })
        .collect()
}

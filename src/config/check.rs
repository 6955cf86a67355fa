//! A checkpoint against the complete list of tensors that a configuration needs, both ways.

use std::collections::{BTreeMap, BTreeSet};

use super::ModelKind;
use crate::checkpoint::{Checkpoint, DType};
use crate::{Error, Result};

/// A tensor that a model needs: its name in the checkpoint, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub(super) fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }
}

/// Checks that the checkpoint has every tensor of `expected`, of that shape and of a float type, and no
/// other but leftovers of training and those that `leftover` allows.
pub(super) fn check(
    checkpoint: &Checkpoint,
    kind: ModelKind,
    expected: &[TensorSpec],
    leftover: impl Fn(&str) -> bool,
) -> Result<()> {
    for TensorSpec { name, shape } in expected {
        let wanted = format!("{shape:?}");
        let tensor = checkpoint.get(name).ok_or_else(|| missing(checkpoint, kind, name, &wanted))?;
        if tensor.shape() != shape {
            return Err(wrong(checkpoint, name, wanted, format!("{:?}", tensor.shape())));
        }
        if tensor.dtype() == DType::I64 {
            return Err(wrong(checkpoint, name, "f32, f16 or bf16".into(), "i64".into()));
        }
    }
    let known: BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    let extra = checkpoint.tensors().iter().find(|(name, tensor)| {
        !known.contains(name.as_str()) && tensor.dtype() != DType::I64 && !of_training(name) && !leftover(name)
    });
    match extra {
        Some((name, tensor)) => Err(Error::Tensor {
            path: checkpoint.path().to_path_buf(),
            tensor: name.clone(),
            expected: format!("no such tensor in this {}", kind.name()),
            found: format!("{tensor:?}"),
            hint: "the checkpoint is of another model, or of a changed one".into(),
        }),
        None => Ok(()),
    }
}

/// What training and sampling programs leave in checkpoints and no model computes with.
fn of_training(name: &str) -> bool {
    const NAMES: [&str; 2] = ["freqs_cis", "causal_mask"];
    const PREFIXES: [&str; 3] = ["optimizer.", "discriminator.", "loss."];
    const SUFFIXES: [&str; 4] =
        ["quantize.codebook_used", "num_batches_tracked", "kv_cache.k_cache", "kv_cache.v_cache"];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The shape of a tensor that must have N dimensions, none of them empty.
pub(super) fn shape<const N: usize>(
    checkpoint: &Checkpoint,
    kind: ModelKind,
    name: &str,
    wanted: &str,
) -> Result<[usize; N]> {
    let tensor = checkpoint.get(name).ok_or_else(|| missing(checkpoint, kind, name, wanted))?;
    match tensor.shape().try_into() {
        Ok(shape) if !tensor.is_empty() => Ok(shape),
        _ => Err(wrong(checkpoint, name, wanted.into(), format!("{:?}", tensor.shape()))),
    }
}

/// How many different `{i}` there are in tensors named `{prefix}{i}.…`.
///
/// Counted, not the largest one plus one: a stray `layers.4000000000` must not cost memory.
pub(super) fn count(checkpoint: &Checkpoint, prefix: &str) -> usize {
    let after = checkpoint.tensors().range(prefix.to_string()..);
    let names = after.map(|(name, _)| name).take_while(|name| name.starts_with(prefix));
    let indices: BTreeSet<&str> = names.filter_map(|name| name[prefix.len()..].split('.').next()).collect();
    indices.len()
}

pub(super) fn wrong(checkpoint: &Checkpoint, name: &str, expected: String, found: String) -> Error {
    Error::Tensor {
        path: checkpoint.path().to_path_buf(),
        tensor: name.to_string(),
        expected,
        found,
        hint: String::new(),
    }
}

fn missing(checkpoint: &Checkpoint, kind: ModelKind, name: &str, wanted: &str) -> Error {
    let other = ModelKind::detect(checkpoint).ok().filter(|&found| found != kind);
    Error::Tensor {
        path: checkpoint.path().to_path_buf(),
        tensor: name.to_string(),
        expected: wanted.to_string(),
        found: checkpoint.skipped().get(name).cloned().unwrap_or_else(|| "no such tensor".into()),
        hint: match other {
            Some(other) => format!("this checkpoint holds a {}; expected a {}", other.name(), kind.name()),
            None => String::new(),
        },
    }
}

/// A number from the metadata; an error when the entry is there and is none.
pub(super) fn number<T: std::str::FromStr>(metadata: &BTreeMap<String, String>, name: &str) -> Result<Option<T>> {
    let Some(text) = metadata.get(name) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| Error::Mismatch {
        what: format!("`{name}` in the checkpoint's metadata or config.json"),
        expected: "a number".into(),
        found: format!("`{}`", text.chars().take(40).collect::<String>()),
        hint: String::new(),
    })
}

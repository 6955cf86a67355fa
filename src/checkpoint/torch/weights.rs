//! From values to weights: which dict holds them, and where in the file each tensor lies.

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::archive::Archive;
use super::value::{Node, Storage, Value, Values, View, shorten};
use super::{Fault, PLAIN};
use crate::Result;
use crate::checkpoint::file::{INCOMPLETE, WeightsChoice, no_ema};
use crate::checkpoint::{Bytes, Contents, DType, Tensor};

/// The cure for a file that is a call as a whole.
const RUNS_NOTHING: &str = "smalti runs nothing that is inside of a checkpoint; re-save the weights alone: \
                            torch.save({\"model\": model.state_dict()}, path)";

/// Where training programs put the weights, in this order.
const WEIGHTS: [&str; 3] = ["model", "module", "state_dict"];

/// Where they put the moving average of the weights.
const EMA: &str = "ema";

/// The entries of a dict.
pub(super) type Entries<'v, 'a> = &'v [(Value<'a>, Value<'a>)];

/// The dict that holds the weights.
pub(super) fn choose<'v, 'a>(
    path: &Path,
    values: &'v Values<'a>,
    top: Value<'a>,
    choice: WeightsChoice,
) -> Result<Entries<'v, 'a>> {
    let Some(entries) = values.dict(top) else {
        let problem = format!("expected a dict of tensors, found {}", values.describe(top));
        return Err(Fault::with_hint(problem, RUNS_NOTHING).at(path));
    };
    // In Python, the last of several equal keys wins.
    let under = |name: &str| {
        let entry = entries.iter().rev().find(|(key, _)| *key == Value::Str(name));
        entry.and_then(|&(_, value)| values.dict(value)).filter(|dict| has_tensors(values, dict))
    };
    let weights = || WEIGHTS.into_iter().find_map(under);
    let bare = || has_tensors(values, entries).then_some(entries);
    let found = match choice {
        WeightsChoice::Model => weights().or_else(bare).or_else(|| under(EMA)),
        WeightsChoice::Ema => under(EMA),
    };
    found.ok_or_else(|| {
        let found = keys(values, entries);
        if choice == WeightsChoice::Ema {
            return no_ema(path, &found);
        }
        Fault::with_hint(
            format!("expected tensors under `model`, `module`, `state_dict` or `ema`, or at the top, found {found}"),
            PLAIN,
        )
        .at(path)
    })
}

fn has_tensors(values: &Values, entries: Entries) -> bool {
    entries
        .iter()
        .any(|&(key, value)| matches!(key, Value::Str(_)) && matches!(values.node(value), Some(Node::Tensor(_))))
}

/// The first few keys of a dict, for errors, and which of their values only running code could make.
fn keys(values: &Values, entries: Entries) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = entries
        .iter()
        .take(MOST)
        .map(|&(key, value)| {
            let key = match key {
                Value::Str(name) => format!("`{}`", shorten(name)),
                _ => "a key that is no text".into(),
            };
            match values.node(value) {
                Some(Node::Opaque(_)) => format!("{key} ({})", values.describe(value)),
                _ => key,
            }
        })
        .collect();
    match (names.len(), entries.len()) {
        (0, _) => "an empty dict".into(),
        (some, all) if some < all => format!("{} and {} more", names.join(", "), all - some),
        _ => names.join(", "),
    }
}

/// Turns the dict's tensors into ranges of the file.
pub(super) fn collect(
    values: &Values,
    entries: Entries,
    archive: &mut Archive,
    map: &Arc<Mmap>,
) -> Result<Contents, Fault> {
    let mut contents = Contents::default();
    for &(key, value) in entries {
        let Value::Str(name) = key else { continue };
        let Some(Node::Tensor(view)) = values.node(value) else {
            contents.skipped.insert(name.to_string(), values.describe(value));
            continue;
        };
        let Some(dtype) = dtype(view.dtype.map_or(view.storage.class.name, |dtype| dtype.name)) else {
            let class = view.dtype.unwrap_or(view.storage.class);
            contents.skipped.insert(name.to_string(), format!("a tensor of `{}`", shorten(&class.to_string())));
            continue;
        };
        let tensor = tensor(view, dtype, archive, map).map_err(|fault| Fault {
            problem: format!("tensor `{}`: {}", shorten(name), fault.problem),
            hint: fault.hint,
        })?;
        contents.tensors.insert(name.to_string(), tensor);
    }
    Ok(contents)
}

/// One tensor, after the checks that every element lies within its storage and the storage within its entry.
fn tensor(view: &View, dtype: DType, archive: &mut Archive, map: &Arc<Mmap>) -> Result<Tensor, Fault> {
    let View { storage, offset, shape, strides, .. } = view;
    let range = archive.entry(&format!("data/{}", storage.key))?;
    let held = storage_bytes(storage).ok_or_else(|| {
        Fault::new(format!("storage `{}` of {} elements overflows", shorten(storage.key), storage.len))
    })?;
    if range.len() < held {
        let problem = format!(
            "storage `data/{}`: expected {held} bytes for {} elements, found {}",
            shorten(storage.key),
            storage.len,
            range.len()
        );
        return Err(Fault::with_hint(problem, INCOMPLETE));
    }
    let overflow = || Fault::new(format!("shape {shape:?} with strides {strides:?} from {offset} on overflows"));
    let needed = extent(shape, strides).and_then(|extent| extent.checked_add(*offset)).ok_or_else(overflow)?;
    let bytes = needed.checked_mul(dtype.size()).ok_or_else(overflow)?;
    if bytes > held {
        return Err(Fault::with_hint(
            format!(
                "storage shorter than the tensor: expected {bytes} bytes for {shape:?} with strides {strides:?} from \
                 element {offset} on, found {held}"
            ),
            INCOMPLETE,
        ));
    }
    // A view that repeats elements could be made to ask for any amount of memory; no weight is one.
    let elements = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    if elements.is_none_or(|elements| elements > held / dtype.size()) {
        return Err(Fault::with_hint(
            format!(
                "expected at most the storage's {} elements, found shape {shape:?} with strides {strides:?}",
                held / dtype.size()
            ),
            "save a copy of the tensor instead of an expanded view: tensor.contiguous()",
        ));
    }
    let start = range.start + offset * dtype.size();
    Tensor::strided(dtype, shape.clone(), strides.clone(), Bytes::Mapped(map.clone()), start).ok_or_else(overflow)
}

/// Elements from the first to the last one, both included; `None` when it overflows.
fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(0usize, |at, (&extent, &stride)| at.checked_add((extent - 1).checked_mul(stride)?))?;
    last.checked_add(1)
}

/// Bytes that a storage promises.
fn storage_bytes(storage: &Storage) -> Option<usize> {
    let size = match storage.class.name {
        "UntypedStorage" => 1,
        name => dtype(name).map_or(1, DType::size),
    };
    storage.len.checked_mul(size)
}

/// Our name for the type of a storage's class or of torch itself, where a weight can have it.
fn dtype(name: &str) -> Option<DType> {
    match name {
        "FloatStorage" | "float32" => Some(DType::F32),
        "HalfStorage" | "float16" => Some(DType::F16),
        "BFloat16Storage" | "bfloat16" => Some(DType::BF16),
        "LongStorage" | "int64" => Some(DType::I64),
        _ => None,
    }
}

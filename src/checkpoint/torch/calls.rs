//! What becomes of the calls that a pickle asks for: the few that put tensors and dicts together are
//! understood, all others leave an inert object that remembers the name.

use super::value::{Global, Node, Storage, Value, Values, View};
use super::{Fault, PLAIN};

/// The value that `callable(*arguments)` stands for.
pub(super) fn result<'a>(
    values: &mut Values<'a>,
    callable: Value<'a>,
    arguments: Value<'a>,
) -> Result<Value<'a>, Fault> {
    let Some(global) = values.global(callable) else {
        // The result of a call that we did not make, called in turn; keep the first name.
        return match values.node(callable) {
            Some(&Node::Opaque(_)) => Ok(callable),
            _ => Err(Fault::new(format!("expected a function's name, found {}", values.describe(callable)))),
        };
    };
    let Some(items) = values.items(arguments) else {
        return Err(Fault::new(format!("expected arguments for `{global}`, found {}", values.describe(arguments))));
    };
    // A tensor of a storage that we did not make is not made either.
    if global.module == "torch._utils"
        && let Some(&first) = items.first()
        && matches!(values.node(first), Some(Node::Opaque(_)))
    {
        return Ok(first);
    }
    match (global.module, global.name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
            let view = view(values, items, None)?;
            Ok(values.add(Node::Tensor(Box::new(view))))
        }
        ("torch._utils", "_rebuild_tensor_v3") => {
            let dtype = items.get(6).and_then(|&dtype| values.global(dtype));
            let dtype = dtype.ok_or_else(|| Fault::new(format!("expected a type for `{global}`, found none")))?;
            let view = view(values, items, Some(dtype))?;
            Ok(values.add(Node::Tensor(Box::new(view))))
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            items.first().copied().ok_or_else(|| Fault::new(format!("expected a tensor for `{global}`, found none")))
        }
        ("collections", "OrderedDict") => {
            let entries = match items.first() {
                None => Some(Vec::new()),
                Some(&pairs) => entries(values, pairs),
            };
            let entries = entries.ok_or_else(|| Fault::new(format!("expected pairs for `{global}`, found others")))?;
            Ok(values.add(Node::Dict(entries)))
        }
        ("collections", "defaultdict") => Ok(values.add(Node::Dict(Vec::new()))),
        ("torch", "Size") => {
            let size = items.first().copied();
            Ok(size.unwrap_or_else(|| values.add(Node::Tuple(Vec::new()))))
        }
        _ => Ok(values.add(Node::Opaque(global))),
    }
}

/// Pairs as `OrderedDict` takes them: a list of lists or tuples of two.
fn entries<'a>(values: &Values<'a>, pairs: Value<'a>) -> Option<Vec<(Value<'a>, Value<'a>)>> {
    let pairs = values.items(pairs)?.iter();
    pairs
        .map(|&pair| match *values.items(pair)? {
            [key, value] => Some((key, value)),
            _ => None,
        })
        .collect()
}

/// A persistent id: torch stores storages outside of the pickle, as ("storage", class, key, location, length).
pub(super) fn persistent<'a>(values: &Values<'a>, id: Value<'a>) -> Result<Node<'a>, Fault> {
    let items = values.items(id).unwrap_or_default();
    let [Value::Str("storage"), class, Value::Str(key), _, Value::Int(len), ..] = *items else {
        return Err(Fault::with_hint(format!("expected a storage's id, found {}", values.describe(id)), PLAIN));
    };
    let class = values
        .global(class)
        .ok_or_else(|| Fault::new(format!("storage {key}: expected a class, found {}", values.describe(class))))?;
    let len = usize::try_from(len).map_err(|_| Fault::new(format!("storage {key}: expected a length, found {len}")))?;
    Ok(Node::Storage(Storage { class, key, len }))
}

/// (storage, offset, shape, strides, …) as the `_rebuild_tensor` functions take them.
fn view<'a>(values: &Values<'a>, items: &[Value<'a>], dtype: Option<Global<'a>>) -> Result<View<'a>, Fault> {
    let fault = |what: &str| Fault::new(format!("expected {what} of a tensor, found something else"));
    let [storage, Value::Int(offset), shape, strides, ..] = *items else {
        return Err(fault("storage, offset, shape and strides"));
    };
    let Some(&Node::Storage(storage)) = values.node(storage) else {
        return Err(Fault::new(format!("expected the storage of a tensor, found {}", values.describe(storage))));
    };
    let sizes = |value| -> Option<Vec<usize>> {
        let number = |item: &Value<'a>| match *item {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        values.items(value)?.iter().map(number).collect()
    };
    let offset = usize::try_from(offset).map_err(|_| fault("the offset"))?;
    let shape = sizes(shape).ok_or_else(|| fault("the shape"))?;
    let strides = sizes(strides).ok_or_else(|| fault("the strides"))?;
    if shape.len() != strides.len() || shape.len() > MAX_DIMENSIONS {
        return Err(fault("as many strides as dimensions, at most 64,"));
    }
    Ok(View { storage, dtype, offset, shape, strides })
}

/// PyTorch's own limit.
const MAX_DIMENSIONS: usize = 64;

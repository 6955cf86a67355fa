//! A graph's weights as the checkpoint has them: found by name, checked, and turned into what executors hold.

use half::bf16;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::graph::{Source, Weight};
use crate::{Error, Result};

/// The weight's values in f32, from wherever they come.
pub(super) fn values(checkpoint: &Checkpoint, weight: &Weight) -> Result<Vec<f32>> {
    match &weight.source {
        Source::Constant(values) => {
            let len = weight.shape.iter().product::<usize>();
            assert_eq!(values.len(), len, "the constant `{}` does not fill its shape", weight.name);
            Ok(values.to_vec())
        }
        Source::Tensor => Ok(find(checkpoint, weight)?.to_f32()),
        Source::Stacked(_) => Ok(parts(checkpoint, weight)?.into_iter().flat_map(Tensor::to_f32).collect()),
        Source::NormalizedTensor => {
            let mut values = find(checkpoint, weight)?.to_f32();
            for row in values.chunks_exact_mut(weight.shape[1]) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
                row.iter_mut().for_each(|x| *x /= norm);
            }
            Ok(values)
        }
    }
}

/// The weight's values in bf16, rounded once.
pub(super) fn bf16_values(checkpoint: &Checkpoint, weight: &Weight) -> Result<Vec<bf16>> {
    match &weight.source {
        Source::Tensor => Ok(find(checkpoint, weight)?.to_bf16()),
        Source::Stacked(_) => Ok(parts(checkpoint, weight)?.into_iter().flat_map(Tensor::to_bf16).collect()),
        _ => Ok(values(checkpoint, weight)?.into_iter().map(bf16::from_f32).collect()),
    }
}

/// The weight's tensor. Errors when there is none of its name, or of another shape.
pub(super) fn find<'c>(checkpoint: &'c Checkpoint, weight: &Weight) -> Result<&'c Tensor> {
    find_shaped(checkpoint, &weight.name, &weight.shape)
}

/// The tensors that lie one below the other in the weight.
fn parts<'c>(checkpoint: &'c Checkpoint, weight: &Weight) -> Result<Vec<&'c Tensor>> {
    weight.tensors().into_iter().map(|(name, shape)| find_shaped(checkpoint, name, &shape)).collect()
}

fn find_shaped<'c>(checkpoint: &'c Checkpoint, name: &str, shape: &[usize]) -> Result<&'c Tensor> {
    let wrong = |found: String| Error::Tensor {
        path: checkpoint.path().to_path_buf(),
        tensor: name.into(),
        expected: format!("shape {shape:?}"),
        found,
        hint: String::new(),
    };
    let tensor = checkpoint.get(name).ok_or_else(|| wrong("none of that name".into()))?;
    if tensor.shape() != shape {
        return Err(wrong(format!("shape {:?}", tensor.shape())));
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Elem;

    #[test]
    fn stacked_tensors_lie_one_below_the_other() {
        let tensor = |first: f32| Tensor::from_f32(vec![1, 2], &[first, first + 1.0]);
        let tensors = [("q", tensor(1.0)), ("k", tensor(3.0)), ("wide", Tensor::from_f32(vec![1, 3], &[0.0; 3]))];
        let tensors = tensors.map(|(name, tensor)| (name.to_string(), tensor)).into();
        let checkpoint = Checkpoint::from_tensors("test", tensors, std::collections::BTreeMap::new());
        let stacked = |names: [&str; 2]| Weight {
            name: names.join(" + "),
            shape: vec![2, 2],
            elem: Elem::F32,
            source: Source::Stacked(names.map(String::from).into()),
        };
        assert_eq!(values(&checkpoint, &stacked(["q", "k"])).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(bf16_values(&checkpoint, &stacked(["k", "q"])).unwrap(), [3.0, 4.0, 1.0, 2.0].map(bf16::from_f32));
        for (other, said) in [("v", "none of that name"), ("wide", "shape [1, 3]")] {
            let error = values(&checkpoint, &stacked(["q", other])).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains(said) && error.contains("shape [1, 2]"), "{error}");
        }
    }
}

//! Weights and buffers on the device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use half::bf16;

use super::device::{Device, DeviceBuffer, MappedBuffer, Ptr, Stream};
use super::lower::Arrangement;
use crate::Result;
use crate::backend::weights::{bf16_values, values};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::graph::{BufferId, Elem, Graph, Role, Source, Weight};

/// Weights that are on the device already, by everything that decides their bytes.
#[derive(Default)]
pub struct WeightCache(Mutex<HashMap<Key, Weak<DeviceBuffer>>>);

#[derive(PartialEq, Eq, Hash)]
struct Key {
    checkpoint: u64,
    name: String,
    elem: Elem,
    normalized: bool,
    /// The [`Arrangement`]'s name; "" for as it is.
    arrangement: &'static str,
}

impl WeightCache {
    /// The weight, uploaded or shared with the plans that have it.
    pub fn get(
        &self,
        device: &Arc<dyn Device>,
        stream: &mut dyn Stream,
        checkpoint: &Checkpoint,
        weight: &Weight,
        arrangement: Option<&Arrangement>,
    ) -> Result<Arc<DeviceBuffer>> {
        if let Source::Constant(_) = weight.source {
            // Computed from what the plan is for, the picture's size say, and not from the checkpoint.
            return load(device, stream, checkpoint, weight, arrangement).map(Arc::new);
        }
        let key = Key {
            checkpoint: checkpoint.id(),
            name: weight.name.clone(),
            elem: weight.elem,
            normalized: matches!(weight.source, Source::NormalizedTensor),
            arrangement: arrangement.map_or("", |arrangement| arrangement.name),
        };
        let loaded = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = loaded().get(&key).and_then(Weak::upgrade) {
            return Ok(buffer);
        }
        let buffer = Arc::new(load(device, stream, checkpoint, weight, arrangement)?);
        weight.tensors().iter().filter_map(|(name, _)| checkpoint.get(name)).for_each(Tensor::release);
        loaded().insert(key, Arc::downgrade(&buffer));
        Ok(buffer)
    }
}

fn load(
    device: &Arc<dyn Device>,
    stream: &mut dyn Stream,
    checkpoint: &Checkpoint,
    weight: &Weight,
    arrangement: Option<&Arrangement>,
) -> Result<DeviceBuffer> {
    let mut upload = |bytes: &[u8]| {
        let buffer = DeviceBuffer::new(device, bytes.len())?;
        // SAFETY: the buffer was just made, as long as the bytes.
        unsafe { stream.write(buffer.ptr(), bytes)? };
        Ok(buffer)
    };
    if weight.elem == Elem::Bf16 {
        let values: Vec<bf16> = bf16_values(checkpoint, weight)?;
        match arrangement {
            Some(arrangement) => upload(bytemuck::cast_slice(&(arrangement.arrange)(&values))),
            None => upload(bytemuck::cast_slice(&values)),
        }
    } else {
        assert!(arrangement.is_none(), "`{}` is f32; only bf16 weights are arranged", weight.name);
        upload(bytemuck::cast_slice(&values(checkpoint, weight)?))
    }
}

/// One buffer of a plan.
pub enum PlanBuffer {
    Device(DeviceBuffer),
    /// Codes on their way to the host: kernels write them there themselves, and progress needs no copy.
    Mapped(MappedBuffer),
}

impl PlanBuffer {
    pub fn new(device: &Arc<dyn Device>, graph: &Graph, id: BufferId) -> Result<Self> {
        let buffer = graph.at(id);
        let bytes = graph.bytes_of(id);
        match (buffer.role, buffer.elem) {
            (Role::Output, Elem::U32) => MappedBuffer::new(device, bytes).map(Self::Mapped),
            _ => DeviceBuffer::new(device, bytes).map(Self::Device),
        }
    }

    /// Its address on the device.
    pub fn ptr(&self) -> Ptr {
        match self {
            Self::Device(buffer) => buffer.ptr(),
            Self::Mapped(buffer) => buffer.ptr(),
        }
    }

    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Device(buffer) => buffer.len_bytes(),
            Self::Mapped(buffer) => buffer.len_bytes(),
        }
    }
}

//! The CUDA executor: hand-written kernels, one per op, replayed as one graph per step.
//!
//! bf16 weights, activations and cache; f32 residual stream, sums, softmax and logits. A row's result does not
//! depend, bit for bit, on how many rows, slots or launches there are. One file per op, of the op's name: it
//! checks what the kernel needs and makes its launches; the kernel is in `kernels/` under the same name.
//!
//! Everything but [`driver`] is as much in use without a GPU: [`device::Device`] is all that a plan needs.

mod accept;
pub mod arithmetic_rate;
mod attention;
mod codebook_lookup;
mod conv2d;
pub mod device;
pub mod driver;
mod embed;
mod fragments;
mod group_norm_stats;
pub mod kernels;
mod linear;
mod linear_residual;
mod listing;
mod lower;
mod memory;
mod nearest_code;
mod norm_gated_gelu;
mod norm_linear;
mod norm_logits;
mod norm_qkv_rope;
mod norm_rows;
mod norm_swiglu;
mod pixels_to_input;
mod plan;
mod prefix_mean;
mod product;
mod sample;
mod set_prefix;
mod spatial_attention;
mod text_attention;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::listing::launches;

use self::device::{Device, DeviceBuffer};
use self::driver::CudaDevice;
use self::lower::{Arrangement, lower};
use self::memory::{PlanBuffer, WeightCache};
use self::plan::CudaPlan;
use super::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::graph::{Elem, Graph, Op, WeightId};
use crate::{Error, Result};

/// Runs graphs on a CUDA device.
///
/// A fault ends the sessions that are on the device; the next plan is made on a renewed one.
pub struct CudaExecutor(Mutex<Place>);

/// A device and what is on it.
#[derive(Clone)]
struct Place {
    device: Arc<dyn Device>,
    weights: Arc<WeightCache>,
}

impl Place {
    fn new(device: Arc<dyn Device>) -> Self {
        Self { device, weights: Arc::default() }
    }
}

impl CudaExecutor {
    /// On a given device.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self(Mutex::new(Place::new(device)))
    }

    /// On card `number`; see [`CudaDevice::open`].
    pub fn open(number: usize) -> Result<Self> {
        Ok(Self::new(Arc::new(CudaDevice::open(number)?)))
    }

    /// On the first card that can be opened; see [`CudaDevice::open_any`].
    pub fn open_any() -> Result<Self> {
        Ok(Self::new(Arc::new(CudaDevice::open_any()?)))
    }

    /// The place to work in.
    fn place(&self) -> Result<Place> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = place.device.renewed()? {
            *place = Place::new(device);
        }
        Ok(place.clone())
    }
}

impl Executor for CudaExecutor {
    fn backend(&self) -> &'static str {
        "cuda"
    }

    fn describe(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).device.describe()
    }

    fn activations(&self) -> Elem {
        Elem::Bf16
    }

    fn free_memory(&self) -> u64 {
        /// For what no graph lists: the kernels themselves, recorded steps, the ops' scratch, rounding up.
        const RESERVED: u64 = 256 << 20;
        let free = self.place().and_then(|place| place.device.memory()).map_or(0, |memory| memory.free_bytes);
        free.saturating_sub(RESERVED)
    }

    fn used_memory(&self) -> Option<u64> {
        let memory = self.place().and_then(|place| place.device.memory()).ok()?;
        Some(memory.total_bytes - memory.free_bytes)
    }

    fn copy_bandwidth(&self) -> Result<Option<f64>> {
        self.place()?.device.copy_bandwidth()
    }

    fn arithmetic_rate(&self, precision: Elem) -> Result<Option<f64>> {
        let device = self.place()?.device;
        if precision == Elem::Bf16 && device.keeps_time() {
            arithmetic_rate::measure(&device).map(Some)
        } else {
            Ok(None)
        }
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn supports(&self, graph: &Graph, op: &Op) -> Result<(), String> {
        lower(op).check(graph)
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>> {
        let Place { device, weights } = self.place()?;
        let mut arrangements: HashMap<WeightId, Arrangement> = HashMap::new();
        let (mut scratch, mut counters) = (0, 0);
        for node in graph.phases().iter().flat_map(|phase| &phase.nodes) {
            let op = lower(&node.op);
            op.check(&graph).map_err(|problem| Error::Device {
                device: device.describe(),
                problem: format!("`{}` of {}: {problem}", node.name, graph.name()),
                hint: "use --device cpu".into(),
            })?;
            scratch = scratch.max(op.scratch_bytes(&graph));
            counters = counters.max(op.counters(&graph));
            for (id, arrangement) in op.arrangements(&graph) {
                let name = arrangement.name;
                let other = arrangements.insert(id, arrangement);
                let same = other.is_none_or(|other| other.name == name);
                assert!(same, "two ops want `{}` in different forms", graph.weight_at(id).name);
            }
        }
        let mut stream = device.stream()?;
        let mut load = |id| {
            let (weight, arrangement) = (graph.weight_at(id), arrangements.get(&id));
            weights.get(&device, stream.as_mut(), checkpoint, weight, arrangement)
        };
        let weights = graph.weight_ids().map(&mut load).collect::<Result<_>>()?;
        // Other plans may share the weights, on streams of their own.
        stream.synchronize()?;
        let buffers = graph.buffer_ids().map(|id| PlanBuffer::new(&device, &graph, id)).collect::<Result<_>>()?;
        let room = |bytes| DeviceBuffer::new(&device, bytes);
        let rooms = (room(scratch)?, room(counters * size_of::<u32>())?);
        Ok(Box::new(CudaPlan::new(stream, graph, buffers, weights, rooms, device.clone())))
    }
}

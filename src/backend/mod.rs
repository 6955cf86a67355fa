//! Executors: they allocate a graph once and replay it. A backend knows ops, never models.
//!
//! [`cpu::CpuExecutor`] runs everywhere, on all cores, with AMX, AVX-512, AVX2 or portable code;
//! [`cuda::CudaExecutor`] runs hand-written kernels; a
//! [`Device`] is what users name either by.

mod choose;
pub mod cpu;
pub mod cuda;
mod weights;

pub use choose::Device;

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use half::bf16;

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::graph::{BufferId, Elem, Extent, Graph, Op, PhaseId};

/// Bytes of the host's memory that can be had now.
pub fn free_host_memory() -> u64 {
    cpu::memory::available()
}

/// A device that graphs can be laid out on.
pub trait Executor: Send + Sync {
    /// Its kind in a word: `cpu`, `cuda`.
    fn backend(&self) -> &'static str;

    /// What runs: processor and instruction set, for people.
    fn describe(&self) -> String;

    /// What a graph's activations are held as: the residual stream, sums, softmax and logits aside, which are f32.
    fn activations(&self) -> Elem;

    /// Bytes of memory that a plan may still take.
    fn free_memory(&self) -> u64;

    /// Bytes of the device's own memory that are taken, by whomever; `None` where its memory is the host's.
    fn used_memory(&self) -> Option<u64> {
        None
    }

    /// Bytes per second that a copy in the device's own memory reads and writes, measured now; `None` where that
    /// memory is the host's.
    fn copy_bandwidth(&self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Floating-point operations per second that the device reaches on factors of `precision`, [`Elem::F32`] or
    /// [`Elem::Bf16`], measured now; `None` where nothing measures it.
    fn arithmetic_rate(&self, _precision: Elem) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Whether a replay returns before the device is done, so that the host has time to use.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// Whether an op of a graph can run here: what it needs, where it cannot.
    fn supports(&self, _graph: &Graph, _op: &Op) -> Result<(), String> {
        Ok(())
    }

    /// Loads the graph's weights, allocates its buffers, zeroed, and decides everything that a run needs.
    ///
    /// Plans of one executor share the weights that they have in common. Errors when a tensor is missing
    /// or of another shape than the graph's.
    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>>;
}

/// A graph on a device, ready to be replayed. Nothing in a run allocates.
pub trait Plan: Send {
    fn graph(&self) -> &Graph;

    /// Runs some of a phase's ops. Panics when `extent` exceeds the graph's or `nodes` the phase's. What the tables of
    /// rows and draws hold beyond `extent` means nothing afterwards.
    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()>;

    /// Runs a whole phase `times` times, one after the other, without coming back in between; what the ops
    /// advance by themselves (rows, draws) drives the next time. May return before the device is done.
    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()>;

    /// Waits until all runs are done.
    fn wait(&mut self) -> Result<()> {
        Ok(())
    }

    /// Copies bytes into a buffer from byte `offset_bytes` on. Panics when they do not fit.
    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()>;

    /// Copies bytes out of a buffer from byte `offset_bytes` on, when all runs are done. Panics when the buffer is
    /// shorter.
    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()>;

    /// Copies what is there by now, without waiting where the device allows: codes while more are drawn.
    fn peek_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        self.read_bytes(buffer, offset_bytes, bytes)
    }
}

impl dyn Plan + '_ {
    /// Runs a whole phase.
    pub fn run(&mut self, phase: PhaseId, extent: Extent) -> Result<()> {
        self.replay(phase, extent, 1)
    }

    /// Copies elements into a buffer from element `offset` on.
    pub fn write<T: Pod>(&mut self, buffer: BufferId, offset: usize, values: &[T]) -> Result<()> {
        debug_assert_eq!(size_of::<T>(), self.graph().at(buffer).elem.size(), "element type of the buffer");
        self.write_bytes(buffer, offset * size_of::<T>(), bytemuck::cast_slice(values))
    }

    /// Copies numbers into a buffer of f32 or bf16 from element `offset` on, rounded to what it holds.
    pub fn write_floats(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<()> {
        match self.graph().at(buffer).elem {
            Elem::Bf16 => {
                let values: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
                self.write(buffer, offset, &values)
            }
            _ => self.write(buffer, offset, values),
        }
    }

    /// Copies elements out of a buffer from element `offset` on.
    pub fn read<T: Pod>(&mut self, buffer: BufferId, offset: usize, values: &mut [T]) -> Result<()> {
        debug_assert_eq!(size_of::<T>(), self.graph().at(buffer).elem.size(), "element type of the buffer");
        self.read_bytes(buffer, offset * size_of::<T>(), bytemuck::cast_slice_mut(values))
    }
}

//! A graph on a device: addresses decided, launches listed, steps recorded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::device::{Device, DeviceBuffer, Launch, Ptr, Recording, Stream};
use super::lower::{Lowering, lower};
use super::memory::PlanBuffer;
use crate::backend::Plan;
use crate::graph::{BufferId, Draw, Elem, Extent, Graph, NO_ROW, NO_SLOT, PhaseId, Row};
use crate::{Error, Result};

/// Launches of one phase at one laid-out extent.
pub(super) struct Laid {
    pub launches: Vec<Launch>,
    /// By node: its launches.
    pub nodes: Vec<Range<usize>>,
    recording: Option<Recording>,
}

/// The extent that is laid out for a run of `extent`: rows and draws rounded up to a power of two, so that few
/// are ever recorded. Where there is no table of rows to mark padding in, the extent itself.
pub(super) fn bucket(graph: &Graph, extent: Extent) -> Extent {
    let max = graph.max();
    let up = |n: usize, max: usize| if n == 0 { 0 } else { n.next_power_of_two().min(max) };
    match graph.buffers().iter().any(|buffer| buffer.elem == Elem::Row) {
        true => Extent { rows: up(extent.rows, max.rows), draws: up(extent.draws, max.draws) },
        false => extent,
    }
}

/// Lists a phase's launches.
pub(super) fn lay_out(cx: &Lowering<'_>, phase: PhaseId) -> Laid {
    let mut laid = Laid { launches: Vec::new(), nodes: Vec::new(), recording: None };
    for node in cx.graph.nodes(phase) {
        let first = laid.launches.len();
        let op = lower(&node.op);
        let name = node.name.as_str().into();
        laid.launches.extend(op.launches(cx).into_iter().map(|launch| launch.of(&name)));
        laid.nodes.push(first..laid.launches.len());
    }
    laid
}

/// A plan of the CUDA executor. Fields drop in order: the stream first, which waits for what runs.
pub(super) struct CudaPlan {
    pub stream: Box<dyn Stream>,
    pub graph: Arc<Graph>,
    pub buffers: Vec<PlanBuffer>,
    pub weights: Vec<Arc<DeviceBuffer>>,
    pub scratch: DeviceBuffer,
    pub counters: DeviceBuffer,
    pub device: Arc<dyn Device>,
    laid: HashMap<(PhaseId, Extent), Laid>,
    /// The extent whose padding the tables are marked for; `None` when they were written since.
    padded: Option<Extent>,
    /// What went wrong on the device; the plan is of no use any more.
    failed: Option<String>,
}

impl CudaPlan {
    pub fn new(
        stream: Box<dyn Stream>,
        graph: Arc<Graph>,
        buffers: Vec<PlanBuffer>,
        weights: Vec<Arc<DeviceBuffer>>,
        (scratch, counters): (DeviceBuffer, DeviceBuffer),
        device: Arc<dyn Device>,
    ) -> Self {
        let (laid, padded, failed) = (HashMap::new(), None, None);
        Self { stream, graph, buffers, weights, scratch, counters, device, laid, padded, failed }
    }

    /// Makes sure that the phase is laid out for the run and that the tables' padding is marked; returns its key.
    fn prepare(&mut self, phase: PhaseId, extent: Extent) -> Result<(PhaseId, Extent)> {
        let max = self.graph.max();
        assert!(extent.rows <= max.rows && extent.draws <= max.draws, "{extent:?} exceeds the plan's {max:?}");
        self.check()?;
        let laid_out = bucket(&self.graph, extent);
        if self.padded != Some(extent) {
            self.pad(extent, laid_out)?;
            self.padded = Some(extent);
        }
        let key = (phase, laid_out);
        if !self.laid.contains_key(&key) {
            let buffers: Vec<Ptr> = self.buffers.iter().map(PlanBuffer::ptr).collect();
            let weights: Vec<Ptr> = self.weights.iter().map(|weight| weight.ptr()).collect();
            let cx = Lowering {
                graph: &self.graph,
                buffers: &buffers,
                weights: &weights,
                scratch: self.scratch.ptr(),
                counters: self.counters.ptr(),
                extent: laid_out,
                capacity: self.device.capacity(),
            };
            let laid = lay_out(&cx, phase);
            self.laid.insert(key, laid);
        }
        Ok(key)
    }

    /// Marks what fills the tables up to the laid-out extent.
    fn pad(&mut self, extent: Extent, laid_out: Extent) -> Result<()> {
        let row = Row { slot: NO_SLOT, ..Row::default() };
        let draw = Draw { cond_row: NO_ROW, uncond_row: NO_ROW, ..Draw::default() };
        let rows = vec![row; laid_out.rows - extent.rows];
        let draws = vec![draw; laid_out.draws - extent.draws];
        for id in self.graph.clone().buffer_ids() {
            let (first, bytes): (usize, &[u8]) = match self.graph.at(id).elem {
                Elem::Row => (extent.rows * size_of::<Row>(), bytemuck::cast_slice(&rows)),
                Elem::Draw => (extent.draws * size_of::<Draw>(), bytemuck::cast_slice(&draws)),
                _ => continue,
            };
            self.put(id, first, bytes)?;
        }
        Ok(())
    }

    fn put(&mut self, id: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        let buffer = &mut self.buffers[id.index()];
        assert!(offset_bytes + bytes.len() <= buffer.len_bytes(), "`{}` is shorter", self.graph.at(id).name);
        let done = match buffer {
            _ if bytes.is_empty() => Ok(()),
            // SAFETY: inside the buffer, which lives as long as the plan.
            PlanBuffer::Device(buffer) => unsafe { self.stream.write(buffer.ptr().offset(offset_bytes), bytes) },
            PlanBuffer::Mapped(buffer) => self.stream.synchronize().and_then(|()| buffer.poke(offset_bytes, bytes)),
        };
        self.note(done, None)
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(problem) => Err(Error::Device {
                device: self.device.describe(),
                problem: format!("this session ended when the device failed: {problem}"),
                hint: "start a new session".into(),
            }),
        }
    }

    /// Remembers a failure and says where it happened.
    fn note<T>(&mut self, result: Result<T>, at: Option<&str>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Device { device, problem, hint } => {
                let problem = at.map_or(problem.clone(), |at| format!("{at}: {problem}"));
                self.failed = Some(problem.clone());
                Error::Device { device, problem, hint }
            }
            other => other,
        })
    }
}

impl Plan for CudaPlan {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()> {
        let key = self.prepare(phase, extent)?;
        let laid = &self.laid[&key];
        let run = match &laid.nodes[nodes] {
            [] => &[],
            nodes => &laid.launches[nodes[0].start..nodes[nodes.len() - 1].end],
        };
        // SAFETY: the launches were made by the ops' `Lower` for this plan's live memory.
        let done = unsafe { self.stream.launch(run) };
        self.note(done, None)
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()> {
        let key = self.prepare(phase, extent)?;
        let laid = self.laid.get_mut(&key).expect("it was prepared");
        let recording = match laid.recording {
            Some(recording) => Ok(recording),
            // SAFETY: as in `run_nodes`; the plan's memory outlives the recording.
            None => unsafe { self.stream.record(&laid.launches) },
        };
        laid.recording = recording.as_ref().ok().copied();
        let recording = self.note(recording, None)?;
        // SAFETY: as in `run_nodes`.
        let done = unsafe { self.stream.replay(recording, times) };
        let graph = self.graph.clone();
        self.note(done, Some(graph.phase_name(phase)))
    }

    fn wait(&mut self) -> Result<()> {
        self.check()?;
        let done = self.stream.synchronize();
        self.note(done, None)
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        self.check()?;
        if matches!(self.graph.at(buffer).elem, Elem::Row | Elem::Draw) {
            self.padded = None;
        }
        self.put(buffer, offset_bytes, bytes)
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        self.check()?;
        let from = &self.buffers[buffer.index()];
        assert!(offset_bytes + bytes.len() <= from.len_bytes(), "`{}` is shorter", self.graph.at(buffer).name);
        let done = match from {
            // SAFETY: inside the buffer, which lives as long as the plan.
            PlanBuffer::Device(from) => unsafe { self.stream.read(from.ptr().offset(offset_bytes), bytes) },
            PlanBuffer::Mapped(from) => self.stream.synchronize().and_then(|()| from.peek(offset_bytes, bytes)),
        };
        self.note(done, None)
    }

    fn peek_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        match &self.buffers[buffer.index()] {
            PlanBuffer::Mapped(from) => from.peek(offset_bytes, bytes),
            PlanBuffer::Device(_) => self.read_bytes(buffer, offset_bytes, bytes),
        }
    }
}

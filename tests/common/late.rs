//! A CPU that behaves as a GPU does: what is enqueued runs later.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use smalti::Error;
use smalti::backend::cpu::CpuExecutor;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::Checkpoint;
use smalti::graph::{BufferId, Elem, Extent, Graph, PhaseId};

/// A device that runs ahead: it begins a replay when two more are enqueued, or when somebody waits.
pub struct Late(pub CpuExecutor);

struct LatePlan {
    plan: Box<dyn Plan>,
    enqueued: VecDeque<(PhaseId, Extent, usize)>,
}

impl Executor for Late {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn activations(&self) -> Elem {
        self.0.activations()
    }

    fn free_memory(&self) -> u64 {
        self.0.free_memory()
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>, Error> {
        Ok(Box::new(LatePlan { plan: self.0.plan(graph, checkpoint)?, enqueued: VecDeque::new() }))
    }
}

impl LatePlan {
    fn run_down_to(&mut self, left: usize) -> Result<(), Error> {
        while self.enqueued.len() > left {
            let (phase, extent, times) = self.enqueued.pop_front().expect("there are more");
            self.plan.replay(phase, extent, times)?;
        }
        Ok(())
    }
}

impl Plan for LatePlan {
    fn graph(&self) -> &Graph {
        self.plan.graph()
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<(), Error> {
        self.wait()?;
        self.plan.run_nodes(phase, nodes, extent)
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<(), Error> {
        self.enqueued.push_back((phase, extent, times));
        self.run_down_to(2)
    }

    fn wait(&mut self) -> Result<(), Error> {
        self.run_down_to(0)
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<(), Error> {
        self.wait()?;
        self.plan.write_bytes(buffer, offset_bytes, bytes)
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.wait()?;
        self.plan.read_bytes(buffer, offset_bytes, bytes)
    }

    fn peek_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.plan.peek_bytes(buffer, offset_bytes, bytes)
    }
}

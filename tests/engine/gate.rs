//! A CPU executor whose steps the test lets through one by one, so that no outcome hangs on timing.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use smalti::backend::cpu::CpuExecutor;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::Checkpoint;
use smalti::graph::{BufferId, Elem, Extent, Graph, PhaseId};
use smalti::{Error, Result};

/// A step takes at least as long as a round may: rounds are one step then.
const STEP: Duration = Duration::from_millis(5);

/// What a failing device does at the next step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Error,
    Panic,
}

#[derive(Default)]
struct State {
    /// Steps that may still run; `None` for any number.
    permits: Option<usize>,
    /// A step waits for a permit.
    blocked: bool,
    fault: Option<Fault>,
    /// What ran: `s` a step of the transformer, `p` a painting.
    trace: String,
}

/// The test's end.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    /// A gate that lets nothing through.
    pub fn closed() -> Self {
        let gate = Self::default();
        gate.0.0.lock().unwrap().permits = Some(0);
        gate
    }

    pub fn executor(&self, ahead: bool) -> Box<dyn Executor> {
        Box::new(Gated { executor: CpuExecutor::new(1), gate: self.clone(), ahead })
    }

    /// Lets further steps through, and returns when they ran and the next one waits.
    pub fn pass(&self, steps: usize) {
        self.change(|state| {
            state.permits = Some(steps);
            state.blocked = false;
        });
        self.wait_blocked();
    }

    /// Returns when a step waits.
    pub fn wait_blocked(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        drop(changed.wait_while(state, |state| !state.blocked).unwrap());
    }

    pub fn open(&self) {
        self.change(|state| state.permits = None);
    }

    /// The step that waits, or the next one, ends so.
    pub fn break_down(&self, fault: Fault) {
        self.change(|state| state.fault = Some(fault));
    }

    pub fn trace(&self) -> String {
        self.0.0.lock().unwrap().trace.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn enter(&self) -> Result<()> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.permits == Some(0) && state.fault.is_none() {
            state.blocked = true;
            changed.notify_all();
            state = changed.wait(state).unwrap();
        }
        state.blocked = false;
        state.trace.push('s');
        if let Some(permits) = &mut state.permits {
            *permits = permits.saturating_sub(1);
        }
        let fault = state.fault;
        drop(state);
        match fault {
            None => Ok(()),
            Some(Fault::Error) => {
                Err(Error::Device { device: "the gate".into(), problem: "it broke down".into(), hint: String::new() })
            }
            Some(Fault::Panic) => panic!("the gate broke down, as this test wants"),
        }
    }
}

struct Gated {
    executor: CpuExecutor,
    gate: Gate,
    /// Said to run ahead, as a GPU does.
    ahead: bool,
}

impl Executor for Gated {
    fn backend(&self) -> &'static str {
        self.executor.backend()
    }

    fn describe(&self) -> String {
        "gated".into()
    }

    fn activations(&self) -> Elem {
        self.executor.activations()
    }

    fn free_memory(&self) -> u64 {
        self.executor.free_memory()
    }

    fn runs_ahead(&self) -> bool {
        self.ahead
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>> {
        let plan = self.executor.plan(graph, checkpoint)?;
        Ok(Box::new(GatedPlan { plan, gate: self.gate.clone() }))
    }
}

struct GatedPlan {
    plan: Box<dyn Plan>,
    gate: Gate,
}

impl Plan for GatedPlan {
    fn graph(&self) -> &Graph {
        self.plan.graph()
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()> {
        self.plan.run_nodes(phase, nodes, extent)
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()> {
        if self.plan.graph().name() != "gpt" {
            self.gate.change(|state| state.trace.push('p'));
            return self.plan.replay(phase, extent, times);
        }
        for _ in 0..times {
            self.gate.enter()?;
            self.plan.replay(phase, extent, 1)?;
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        self.plan.write_bytes(buffer, offset_bytes, bytes)
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        self.plan.read_bytes(buffer, offset_bytes, bytes)
    }
}

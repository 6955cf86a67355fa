//! The self-test's checks: they pass what is right, on the kernels too, and find what is wrong.

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smalti::backend::cpu::CpuExecutor;
use smalti::backend::cpu::simd::Isa;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::Checkpoint;
use smalti::graph::{BufferId, Elem, Extent, Graph, PhaseId};
use smalti::selftest::{Outcome, Report, Size, check, models};
use smalti::{Error, Result};

/// All ops of the small models.
fn reports(device: &dyn Executor) -> Vec<Report> {
    let reference = CpuExecutor::with_isa(1, Isa::Portable);
    let mut all = Vec::new();
    for model in models(Size::Small) {
        let take = |report| {
            all.push(report);
            Ok(())
        };
        check(&model, |_| true, &reference, device, take).unwrap_or_else(|error| panic!("{}: {error}", model.name));
    }
    all
}

fn assert_right(reports: &[Report]) {
    for report in reports {
        assert!(!report.outcome.is_failure(), "{report:?}");
    }
}

#[test]
fn this_processors_instructions_pass_and_every_op_is_among_the_models() {
    let reports = reports(&CpuExecutor::new(2));
    assert_right(&reports);
    let mut ops: Vec<&str> = reports.iter().map(|report| report.op).collect();
    ops.sort_unstable();
    ops.dedup();
    let expected = [
        "accept",
        "attention",
        "codebook_lookup",
        "conv2d",
        "embed",
        "group_norm_stats",
        "linear",
        "linear_residual",
        "nearest_code",
        "norm_gated_gelu",
        "norm_linear",
        "norm_logits",
        "norm_qkv_rope",
        "norm_rows",
        "norm_swiglu",
        "pixels_to_input",
        "prefix_mean",
        "sample",
        "set_prefix",
        "spatial_attention",
        "text_attention",
    ];
    assert_eq!(ops, expected);
    // Bytes and floating-point operations are of the order that the models have.
    for report in &reports {
        let Outcome::Ran { seconds, cost, comparison } = &report.outcome else { panic!("{report:?}") };
        assert!(*seconds > 0.0 && cost.bytes() > 0 && comparison.elements > 0, "{report:?}");
    }
}

#[test]
fn the_kernels_pass() {
    for (name, executor) in common::cuda_executors("the self-test") {
        let reports = reports(executor.as_ref());
        assert_right(&reports);
        let ran = |report: &&Report| matches!(report.outcome, Outcome::Ran { .. });
        common::report(&format!(
            "{name}: {} of {} checks have kernels",
            reports.iter().filter(ran).count(),
            reports.len()
        ));
        assert!(reports.iter().any(|report| ran(&report)), "{reports:?}");
    }
}

/// A CPU of which the first element that an op writes to floats is off by a quarter.
struct Wrong(CpuExecutor);

struct WrongPlan(Box<dyn Plan>);

impl Executor for Wrong {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn describe(&self) -> String {
        "wrong".into()
    }

    fn activations(&self) -> Elem {
        Elem::F32
    }

    fn free_memory(&self) -> u64 {
        self.0.free_memory()
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>> {
        Ok(Box::new(WrongPlan(self.0.plan(graph, checkpoint)?)))
    }
}

impl WrongPlan {
    fn floats(&mut self) -> Vec<(BufferId, Vec<f32>)> {
        let ids: Vec<BufferId> = self.0.graph().buffer_ids().collect();
        let floats = ids.into_iter().filter(|&id| self.0.graph().at(id).elem == Elem::F32).collect::<Vec<_>>();
        let read = |id: BufferId| {
            let mut values = vec![0f32; self.0.graph().len_of(id)];
            self.0.read(id, 0, &mut values).expect("read");
            (id, values)
        };
        floats.into_iter().map(read).collect()
    }
}

impl Plan for WrongPlan {
    fn graph(&self) -> &Graph {
        self.0.graph()
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()> {
        self.0.run_nodes(phase, nodes, extent)
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()> {
        let before = self.floats();
        self.0.replay(phase, extent, times)?;
        for ((id, before), (_, after)) in before.into_iter().zip(self.floats()) {
            if let Some(i) = (0..after.len()).find(|&i| before[i] != after[i] && after[i] != 0.0) {
                self.0.write(id, i, &[after[i] + 0.25 * after[i].abs().max(1.0)])?;
            }
        }
        Ok(())
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        self.0.write_bytes(buffer, offset_bytes, bytes)
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        self.0.read_bytes(buffer, offset_bytes, bytes)
    }
}

#[test]
fn one_wrong_element_is_found_in_every_op_that_writes_floats() {
    let reports = reports(&Wrong(CpuExecutor::new(1)));
    for report in &reports {
        // They write codes, bytes or bf16 alone; attention's cache and the conv's pixels are checked with the rest.
        let floats = !["sample", "accept", "nearest_code", "set_prefix"].contains(&report.op)
            && report.node != "decoder.conv_out";
        assert_eq!(report.outcome.is_failure(), floats, "{report:?}");
        if let (true, Outcome::Ran { comparison, .. }) = (floats, &report.outcome) {
            assert!(comparison.worst.contains("expected"), "{comparison:?}");
        }
    }
}

/// A CPU that fails at one op, and lays out nothing any more once it did.
struct Broken {
    cpu: CpuExecutor,
    fails_at: &'static str,
    broken: Arc<AtomicBool>,
}

struct BrokenPlan {
    plan: Box<dyn Plan>,
    fails_at: &'static str,
    broken: Arc<AtomicBool>,
}

fn fault(problem: &str) -> Error {
    Error::Device { device: "broken".into(), problem: problem.into(), hint: String::new() }
}

impl Executor for Broken {
    fn backend(&self) -> &'static str {
        self.cpu.backend()
    }

    fn describe(&self) -> String {
        "broken".into()
    }

    fn activations(&self) -> Elem {
        Elem::F32
    }

    fn free_memory(&self) -> u64 {
        self.cpu.free_memory()
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(fault("no new context"));
        }
        let plan = self.cpu.plan(graph, checkpoint)?;
        Ok(Box::new(BrokenPlan { plan, fails_at: self.fails_at, broken: self.broken.clone() }))
    }
}

impl Plan for BrokenPlan {
    fn graph(&self) -> &Graph {
        self.plan.graph()
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()> {
        self.plan.run_nodes(phase, nodes, extent)
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()> {
        if self.plan.graph().nodes(phase).iter().any(|node| node.op.name() == self.fails_at) {
            self.broken.store(true, Ordering::Relaxed);
            return Err(fault("illegal address"));
        }
        self.plan.replay(phase, extent, times)
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        self.plan.write_bytes(buffer, offset_bytes, bytes)
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        self.plan.read_bytes(buffer, offset_bytes, bytes)
    }
}

#[test]
fn of_a_device_that_does_not_recover_it_is_said_what_was_not_checked() {
    let reference = CpuExecutor::with_isa(1, Isa::Portable);
    let device = Broken { cpu: CpuExecutor::new(1), fails_at: "attention", broken: Arc::default() };
    let gpt = models(Size::Small).into_iter().find(|model| model.name.starts_with("GPT")).expect("there is one");
    let mut seen = Vec::new();
    let take = |report: Report| {
        seen.push((report.op, matches!(report.outcome, Outcome::Failed(_))));
        Ok(())
    };
    let wanted = |op: &str| !["embed", "sample"].contains(&op);
    let error = check(&gpt, wanted, &reference, &device, take).expect_err("there is no way on");
    assert_eq!(seen, [("norm_qkv_rope", false), ("attention", true)]);
    assert_eq!(error.to_string(), "broken: no new context; not checked: linear_residual, norm_logits, norm_swiglu");
}

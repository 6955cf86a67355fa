//! The CPU executor: every op on all cores, f32 activations, f32 or bf16 weights; convolutions of bf16 weights round
//! what they multiply them with to bf16, too.
//!
//! A row's result does not depend, bit for bit, on how many rows, slots or threads there are: each output
//! element has one order of summation, fixed by its own row alone. Processors differ in that order where bf16 weights
//! are multiplied: those with AMX do it by tiles ([`simd::Isa::by_tiles`]), convolutions without Winograd's transforms.
//! One file per op, of the op's name.

mod accept;
mod attention;
mod codebook_lookup;
mod conv2d;
mod embed;
mod gate;
mod group_norm_stats;
mod linear;
mod linear_residual;
pub(crate) mod memory;
mod nearest_code;
mod norm_gated_gelu;
mod norm_linear;
mod norm_logits;
mod norm_qkv_rope;
mod norm_rows;
mod norm_swiglu;
mod panels;
mod pixels_to_input;
mod prefix_mean;
mod product;
mod rate;
mod sample;
mod set_prefix;
pub mod simd;
mod spatial_attention;
mod team;
mod text_attention;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use rayon::prelude::*;

use self::memory::{Arrangement, Buffer, WeightCache, WeightData};
use self::simd::Isa;
use self::team::{Member, Team};
use super::{Executor, Plan};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::graph::{BufferId, Elem, Extent, Graph, Node, Op, PhaseId, WeightId};

/// Runs graphs on this machine's cores.
pub struct CpuExecutor {
    team: Arc<Team>,
    isa: Isa,
    weights: WeightCache,
}

impl CpuExecutor {
    /// `threads` of them, one per core for 0, with the best instruction set of the processor.
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// With a given instruction set; panics when the processor lacks it.
    pub fn with_isa(threads: usize, isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this processor has no {}", isa.name());
        Self { team: Arc::new(Team::new(threads)), isa, weights: WeightCache::default() }
    }

    /// Threads that run.
    pub fn threads(&self) -> usize {
        self.team.size()
    }
}

impl Executor for CpuExecutor {
    fn backend(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu ({threads} thread{}, {})", if threads == 1 { "" } else { "s" }, self.isa.name())
    }

    fn activations(&self) -> Elem {
        Elem::F32
    }

    fn free_memory(&self) -> u64 {
        memory::available()
    }

    fn arithmetic_rate(&self, precision: Elem) -> Result<Option<f64>> {
        Ok(Some(match precision {
            Elem::Bf16 if self.isa.multiplies_bf16() => rate::measure::<u32>(&self.team, self.isa)?,
            // What has no products of bf16 widens it.
            _ => rate::measure::<f32>(&self.team, self.isa)?,
        }))
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>> {
        let ops = || graph.phases().iter().flat_map(|phase| &phase.nodes).map(|node| &node.op);
        let mut arrangements: HashMap<WeightId, Arrangement> = HashMap::new();
        for (id, arrangement) in ops().flat_map(|op| arrangements_of(op, &graph, self.isa)) {
            let name = arrangement.name();
            let other = arrangements.insert(id, arrangement);
            let same = other.is_none_or(|other| other.name() == name);
            assert!(same, "two ops want `{}` in different forms", graph.weight_at(id).name);
        }
        for op in ops() {
            if let Op::Embed(op) = op {
                let plain = [op.embedding_table, op.tok_embeddings].iter().all(|id| !arrangements.contains_key(id));
                assert!(plain, "a table is some product's weight, which lies in another order");
            }
        }
        let ids: Vec<WeightId> = graph.weight_ids().collect();
        let load = |id| self.weights.get(checkpoint, graph.weight_at(id), arrangements.get(&id));
        let weights = self.team.install(|| ids.into_par_iter().map(load).collect::<Result<_>>())?;
        let buffers = graph.buffer_ids().map(|id| Buffer::new(graph.bytes_of(id))).collect::<Result<_>>()?;
        let scratch = ops().map(|op| scratch_of(op, &graph, self.isa)).fold(Scratch::default(), Scratch::max);
        Ok(Box::new(CpuPlan {
            arena: Arena {
                buffers,
                weights,
                shared: Buffer::new(scratch.shared * 4)?,
                own: (0..self.team.size()).map(|_| Buffer::new(scratch.own * 4)).collect::<Result<_>>()?,
            },
            graph,
            team: self.team.clone(),
            isa: self.isa,
        }))
    }
}

/// Room that an op needs while it runs, in f32 elements.
#[derive(Clone, Copy, Default)]
struct Scratch {
    /// Seen by all members.
    shared: usize,
    /// One per member.
    own: usize,
}

impl Scratch {
    fn max(self, other: Self) -> Self {
        Self { shared: self.shared.max(other.shared), own: self.own.max(other.own) }
    }
}

fn scratch_of(op: &Op, graph: &Graph, isa: Isa) -> Scratch {
    match op {
        Op::Embed(_)
        | Op::Accept(_)
        | Op::CodebookLookup(_)
        | Op::GroupNormStats(_)
        | Op::PixelsToInput(_)
        | Op::NearestCode(_)
        | Op::NormRows(_)
        | Op::PrefixMean(_)
        | Op::SetPrefix(_) => Scratch::default(),
        Op::Linear(op) => linear::scratch(op, graph),
        Op::LinearResidual(op) => linear_residual::scratch(op, graph),
        Op::NormQkvRope(op) => norm_qkv_rope::scratch(op, graph),
        Op::Attention(op) => attention::scratch(op),
        Op::NormSwiglu(op) => norm_swiglu::scratch(op, graph),
        Op::NormLogits(op) => norm_logits::scratch(op, graph),
        Op::Sample(op) => sample::scratch(op),
        Op::Conv2d(op) => conv2d::scratch(op, graph, isa),
        Op::SpatialAttention(op) => spatial_attention::scratch(op),
        Op::NormLinear(op) => norm_linear::scratch(op, graph),
        Op::NormGatedGelu(op) => norm_gated_gelu::scratch(op, graph),
        Op::TextAttention(op) => text_attention::scratch(op),
    }
}

/// The weights that an op wants in another form than the checkpoint's, made once at load.
fn arrangements_of(op: &Op, graph: &Graph, isa: Isa) -> Vec<(WeightId, Arrangement)> {
    let product = |weight| product::arrangement(weight, graph, isa);
    match op {
        Op::Conv2d(op) => vec![conv2d::arrangement(op, graph, isa)],
        Op::NearestCode(op) => vec![nearest_code::arrangement(op)],
        Op::NormQkvRope(op) => vec![product(op.wqkv)],
        Op::LinearResidual(op) => vec![product(op.weight)],
        Op::NormSwiglu(op) => vec![product(op.w1), product(op.w3)],
        Op::NormLogits(op) => vec![product(op.output)],
        Op::Linear(op) => vec![product(op.weight)],
        Op::NormLinear(op) => vec![product(op.weight)],
        Op::NormGatedGelu(op) => vec![product(op.wi_0), product(op.wi_1)],
        Op::Embed(_)
        | Op::Attention(_)
        | Op::Sample(_)
        | Op::Accept(_)
        | Op::CodebookLookup(_)
        | Op::GroupNormStats(_)
        | Op::SpatialAttention(_)
        | Op::PixelsToInput(_)
        | Op::NormRows(_)
        | Op::TextAttention(_)
        | Op::PrefixMean(_)
        | Op::SetPrefix(_) => Vec::new(),
    }
}

/// Everything that a plan's ops read and write.
struct Arena {
    buffers: Vec<Buffer>,
    weights: Vec<Arc<WeightData>>,
    shared: Buffer,
    own: Vec<Buffer>,
}

/// One member's view of a run.
struct Context<'a> {
    arena: &'a Arena,
    member: &'a Member<'a>,
    isa: Isa,
    extent: Extent,
}

impl Context<'_> {
    /// A buffer's first element; the op keeps members apart by writing only what `Member::deal` gave them.
    fn buffer<T: Pod>(&self, id: BufferId) -> *mut T {
        self.arena.buffers[id.index()].ptr()
    }

    fn weight(&self, id: WeightId) -> &WeightData {
        &self.arena.weights[id.index()]
    }

    fn shared_scratch(&self) -> *mut f32 {
        self.arena.shared.ptr()
    }

    fn own_scratch(&self) -> *mut f32 {
        self.arena.own[self.member.index()].ptr()
    }

    /// Runs one op; returns when all members are done with it.
    fn run(&self, op: &Op) {
        match op {
            Op::Embed(op) => embed::run(op, self),
            Op::NormQkvRope(op) => norm_qkv_rope::run(op, self),
            Op::Attention(op) => attention::run(op, self),
            Op::LinearResidual(op) => linear_residual::run(op, self),
            Op::NormSwiglu(op) => norm_swiglu::run(op, self),
            Op::NormLogits(op) => norm_logits::run(op, self),
            Op::Sample(op) => sample::run(op, self),
            Op::Accept(op) => accept::run(op, self),
            Op::CodebookLookup(op) => codebook_lookup::run(op, self),
            Op::GroupNormStats(op) => group_norm_stats::run(op, self),
            Op::Conv2d(op) => conv2d::run(op, self),
            Op::SpatialAttention(op) => spatial_attention::run(op, self),
            Op::PixelsToInput(op) => pixels_to_input::run(op, self),
            Op::NearestCode(op) => nearest_code::run(op, self),
            Op::Linear(op) => linear::run(op, self),
            Op::NormLinear(op) => norm_linear::run(op, self),
            Op::NormGatedGelu(op) => norm_gated_gelu::run(op, self),
            Op::NormRows(op) => norm_rows::run(op, self),
            Op::TextAttention(op) => text_attention::run(op, self),
            Op::PrefixMean(op) => prefix_mean::run(op, self),
            Op::SetPrefix(op) => set_prefix::run(op, self),
        }
    }
}

struct CpuPlan {
    graph: Arc<Graph>,
    arena: Arena,
    team: Arc<Team>,
    isa: Isa,
}

impl CpuPlan {
    /// The team goes through the nodes `times` times.
    fn execute(&self, nodes: &[Node], extent: Extent, times: usize) {
        // A job counts a million phases, a node has a few.
        const TOGETHER: usize = 256;
        let max = self.graph.max();
        assert!(extent.rows <= max.rows && extent.draws <= max.draws, "{extent:?} exceeds the plan's {max:?}");
        for done in (0..times).step_by(TOGETHER) {
            self.team.run(|member| {
                let context = Context { arena: &self.arena, member, isa: self.isa, extent };
                for _ in done..times.min(done + TOGETHER) {
                    for node in nodes {
                        context.run(&node.op);
                    }
                }
            });
        }
    }
}

impl Plan for CpuPlan {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run_nodes(&mut self, phase: PhaseId, nodes: Range<usize>, extent: Extent) -> Result<()> {
        self.execute(&self.graph.nodes(phase)[nodes], extent, 1);
        Ok(())
    }

    fn replay(&mut self, phase: PhaseId, extent: Extent, times: usize) -> Result<()> {
        self.execute(self.graph.nodes(phase), extent, times);
        Ok(())
    }

    fn write_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &[u8]) -> Result<()> {
        self.arena.buffers[buffer.index()].bytes_mut()[offset_bytes..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_bytes(&mut self, buffer: BufferId, offset_bytes: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.arena.buffers[buffer.index()].bytes_mut()[offset_bytes..][..bytes.len()]);
        Ok(())
    }
}

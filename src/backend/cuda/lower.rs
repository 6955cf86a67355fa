//! From ops to launches: what the kernels of an op need of a plan, and where its things lie.

use half::bf16;

use super::device::{Capacity, Launch, Ptr};
use crate::graph::{BufferId, Elem, Extent, Graph, Op, WeightId};

/// How an op becomes launches; implemented in the file of the op's name.
pub(super) trait Lower {
    /// What the kernels cannot do about this op: what they need and what was found.
    fn check(&self, graph: &Graph) -> Result<(), String>;

    /// Weights that the kernels want in another order than the checkpoint's.
    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        Vec::new()
    }

    /// Room that it needs while it runs, at the largest extent; holds anything before and after.
    fn scratch_bytes(&self, _graph: &Graph) -> usize {
        0
    }

    /// `u32` counters that it needs, at the largest extent: zero before, and it leaves them zero.
    fn counters(&self, _graph: &Graph) -> usize {
        0
    }

    /// The launches of a run of `cx.extent`, in order.
    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch>;
}

/// The op's way to launches.
pub(super) fn lower(op: &Op) -> &dyn Lower {
    match op {
        Op::Accept(op) => op,
        Op::Attention(op) => op,
        Op::CodebookLookup(op) => op,
        Op::Conv2d(op) => op,
        Op::Embed(op) => op,
        Op::GroupNormStats(op) => op,
        Op::Linear(op) => op,
        Op::LinearResidual(op) => op,
        Op::NearestCode(op) => op,
        Op::NormGatedGelu(op) => op,
        Op::NormLinear(op) => op,
        Op::NormLogits(op) => op,
        Op::NormQkvRope(op) => op,
        Op::NormRows(op) => op,
        Op::NormSwiglu(op) => op,
        Op::PixelsToInput(op) => op,
        Op::PrefixMean(op) => op,
        Op::Sample(op) => op,
        Op::SetPrefix(op) => op,
        Op::SpatialAttention(op) => op,
        Op::TextAttention(op) => op,
    }
}

/// From values in the checkpoint's order to what the kernels read.
type Arrange = dyn Fn(&[bf16]) -> Vec<bf16>;

/// Another order of a bf16 weight's values, made once at load.
pub(super) struct Arrangement {
    /// Tells the orders of one weight apart.
    pub name: &'static str,
    /// From values in the checkpoint's order to what the kernels read.
    pub arrange: Box<Arrange>,
}

impl Arrangement {
    pub fn new(name: &'static str, arrange: impl Fn(&[bf16]) -> Vec<bf16> + 'static) -> Self {
        Self { name, arrange: Box::new(arrange) }
    }
}

/// A plan's addresses, for a run of `extent`.
pub(super) struct Lowering<'a> {
    pub graph: &'a Graph,
    /// By [`BufferId`].
    pub buffers: &'a [Ptr],
    /// By [`WeightId`], in the order that the op's [`Arrangement`] gave them.
    pub weights: &'a [Ptr],
    pub scratch: Ptr,
    pub counters: Ptr,
    /// Rows and draws that are laid out; those beyond the run's are padding: `NO_SLOT` in the table of rows,
    /// `NO_ROW` in that of draws.
    pub extent: Extent,
    pub capacity: Capacity,
}

impl Lowering<'_> {
    pub fn buffer(&self, id: BufferId) -> Ptr {
        self.buffers[id.index()]
    }

    pub fn weight(&self, id: WeightId) -> Ptr {
        self.weights[id.index()]
    }

    /// What a buffer is held as.
    pub fn elem(&self, id: BufferId) -> Elem {
        self.graph.at(id).elem
    }
}

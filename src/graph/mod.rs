//! The static graph: a flat, ordered list of fused ops over buffers that are laid out once.
//!
//! A graph knows every buffer, weight and op with shapes and cost before anything runs; an executor
//! ([`crate::backend`]) allocates it and replays it. There is nothing to optimise and nothing to infer:
//! models write the ops they mean, one line per kernel. Depends on [`crate::math`] alone.
//!
//! ```
//! use smalti::graph::{Elem, Extent, Graph, Per, Role};
//!
//! let mut graph = Graph::new("example", Extent { rows: 2, draws: 1 });
//! let x = graph.buffer("x", Elem::F32, Per::Row, &[768], Role::Scratch);
//! assert_eq!(graph.bytes_of(x), 2 * 768 * 4);
//! ```

mod cost;
pub mod ops;
pub mod print;
mod state;
pub mod twin;

pub use cost::{Cost, Load};
pub use ops::Op;
pub use state::{Draw, NO_ROW, NO_SLOT, Row};

use std::sync::Arc;

/// Names a buffer of its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(u32);

/// Names a weight of its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(u32);

/// Names a phase of its graph: a list of ops that is replayed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PhaseId(u32);

impl BufferId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl WeightId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Element type of a buffer or of a weight as the executor holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    F32,
    Bf16,
    U32,
    U8,
    /// [`Row`]: which sequence and position a row of the step computes.
    Row,
    /// [`Draw`]: one token to be drawn.
    Draw,
}

impl Elem {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
            Self::Row => size_of::<Row>(),
            Self::Draw => size_of::<Draw>(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
            Self::U8 => "u8",
            Self::Row => "row",
            Self::Draw => "draw",
        }
    }
}

/// How many rows and draws a run carries, or at most may carry. In a VQ graph a row is an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    pub rows: usize,
    pub draws: usize,
}

/// What a buffer has one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One for the whole plan.
    Plan,
    /// One per row; the leading dimension is the run's number of rows.
    Row,
    /// One per draw.
    Draw,
}

/// Who writes a buffer and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Written by the caller, and perhaps advanced by the ops.
    Input,
    /// Written and read within one run; means nothing after it.
    Scratch,
    /// Lives from run to run: the cache.
    State,
    /// Read by the caller.
    Output,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Scratch => "scratch",
            Self::State => "state",
            Self::Output => "output",
        }
    }
}

/// One preallocated buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub name: String,
    pub elem: Elem,
    pub per: Per,
    /// Without the leading dimension that `per` adds.
    pub shape: Vec<usize>,
    pub role: Role,
}

/// Where a weight's values come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The checkpoint's tensor of the weight's name.
    Tensor,
    /// The checkpoint's tensor of the weight's name, each row divided by its L2 norm (at least 1e-12).
    NormalizedTensor,
    /// These tensors of the checkpoint, all with as many rows, one below the other.
    Stacked(Vec<String>),
    /// Computed from the configuration: the rotation table.
    Constant(Arc<[f32]>),
}

/// One weight as the ops want it.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The checkpoint's name; of several tensors all of theirs.
    pub name: String,
    pub shape: Vec<usize>,
    /// How the executor holds it: [`Elem::F32`] or [`Elem::Bf16`].
    pub elem: Elem,
    pub source: Source,
}

impl Weight {
    /// Bytes as the executor holds it.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.elem.size()
    }

    /// The checkpoint's tensors that it is made of, with the shape of each.
    pub fn tensors(&self) -> Vec<(&str, Vec<usize>)> {
        match &self.source {
            Source::Constant(_) => Vec::new(),
            Source::Tensor | Source::NormalizedTensor => vec![(&self.name, self.shape.clone())],
            Source::Stacked(names) => {
                let mut shape = self.shape.clone();
                debug_assert!(shape[0].is_multiple_of(names.len()), "{names:?} have no equal parts of {shape:?}");
                shape[0] /= names.len();
                names.iter().map(|name| (name.as_str(), shape.clone())).collect()
            }
        }
    }
}

/// An op and the name users see it by, e.g. `layers.3.attention.wo`.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub op: Op,
}

/// A list of ops that is replayed as one: a decoding step, an image decode.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub nodes: Vec<Node>,
}

/// Buffers, weights and phases over them.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    max: Extent,
    buffers: Vec<Buffer>,
    weights: Vec<Weight>,
    phases: Vec<Phase>,
}

impl Graph {
    /// An empty graph whose runs carry at most `max`.
    pub fn new(name: impl Into<String>, max: Extent) -> Self {
        Self { name: name.into(), max, buffers: Vec::new(), weights: Vec::new(), phases: Vec::new() }
    }

    /// Adds a buffer; `shape` without the leading dimension that `per` adds.
    pub fn buffer(&mut self, name: impl Into<String>, elem: Elem, per: Per, shape: &[usize], role: Role) -> BufferId {
        self.buffers.push(Buffer { name: name.into(), elem, per, shape: shape.to_vec(), role });
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// Makes a flat buffer at least `len` elements long: activations of several shapes take turns in it.
    pub fn grow(&mut self, id: BufferId, len: usize) {
        let shape = &mut self.buffers[id.index()].shape;
        debug_assert_eq!(shape.len(), 1, "only a flat buffer grows");
        shape[0] = shape[0].max(len);
    }

    /// Adds a weight; the same name twice is the same weight.
    pub fn weight(&mut self, name: impl Into<String>, elem: Elem, shape: &[usize], source: Source) -> WeightId {
        let name = name.into();
        if let Some(index) = self.weights.iter().position(|weight| weight.name == name) {
            debug_assert_eq!(self.weights[index].shape, shape, "weight `{name}` declared twice, differently");
            return WeightId(index as u32);
        }
        self.weights.push(Weight { name, shape: shape.to_vec(), elem, source });
        WeightId(self.weights.len() as u32 - 1)
    }

    /// Adds an empty phase.
    pub fn phase(&mut self, name: impl Into<String>) -> PhaseId {
        self.phases.push(Phase { name: name.into(), nodes: Vec::new() });
        PhaseId(self.phases.len() as u32 - 1)
    }

    /// The same buffers and weights under other phases.
    pub fn with_phases(&self, phases: Vec<Phase>) -> Self {
        let Self { name, max, buffers, weights, .. } = self.clone();
        Self { name, max, buffers, weights, phases }
    }

    /// The id of a phase by its place in [`Graph::phases`].
    pub fn phase_id(&self, index: usize) -> PhaseId {
        assert!(index < self.phases.len(), "the graph has {} phases", self.phases.len());
        PhaseId(index as u32)
    }

    /// Appends an op to a phase.
    pub fn push(&mut self, phase: PhaseId, name: impl Into<String>, op: impl Into<Op>) {
        self.phases[phase.0 as usize].nodes.push(Node { name: name.into(), op: op.into() });
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most that a run may carry.
    pub fn max(&self) -> Extent {
        self.max
    }

    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// One buffer's description.
    pub fn at(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.index()]
    }

    /// One weight's description.
    pub fn weight_at(&self, id: WeightId) -> &Weight {
        &self.weights[id.index()]
    }

    /// The ops of a phase, in order.
    pub fn nodes(&self, phase: PhaseId) -> &[Node] {
        &self.phases[phase.0 as usize].nodes
    }

    /// The same, for a builder that learns what comes behind an op.
    pub(crate) fn nodes_mut(&mut self, phase: PhaseId) -> &mut [Node] {
        &mut self.phases[phase.0 as usize].nodes
    }

    /// What a phase is called.
    pub fn phase_name(&self, phase: PhaseId) -> &str {
        &self.phases[phase.0 as usize].name
    }

    /// Elements of a buffer, leading dimension included, at the largest extent.
    pub fn len_of(&self, id: BufferId) -> usize {
        let buffer = self.at(id);
        let leading = match buffer.per {
            Per::Plan => 1,
            Per::Row => self.max.rows,
            Per::Draw => self.max.draws,
        };
        leading * buffer.shape.iter().product::<usize>()
    }

    /// Bytes of a buffer at the largest extent.
    pub fn bytes_of(&self, id: BufferId) -> usize {
        self.len_of(id) * self.at(id).elem.size()
    }

    /// All buffers' ids, in order.
    pub fn buffer_ids(&self) -> impl Iterator<Item = BufferId> + use<> {
        (0..self.buffers.len() as u32).map(BufferId)
    }

    /// All weights' ids, in order.
    pub fn weight_ids(&self) -> impl Iterator<Item = WeightId> + use<> {
        (0..self.weights.len() as u32).map(WeightId)
    }

    /// Bytes of all buffers of a role.
    pub fn buffer_bytes(&self, role: Role) -> usize {
        self.buffer_ids().filter(|&id| self.at(id).role == role).map(|id| self.bytes_of(id)).sum()
    }

    /// Bytes of all weights as the executor holds them.
    pub fn weight_bytes(&self) -> usize {
        self.weights.iter().map(Weight::bytes).sum()
    }

    /// Bytes of all weights and buffers.
    pub fn bytes(&self) -> usize {
        self.weight_bytes() + self.buffer_ids().map(|id| self.bytes_of(id)).sum::<usize>()
    }

    /// Bytes and FLOPs of one run of a phase.
    pub fn cost(&self, phase: PhaseId, load: &Load) -> Cost {
        self.nodes(phase).iter().map(|node| node.op.cost(self, load)).sum()
    }
}

//! Every op of a model alone: how far each is from its own floor, and where the time goes.
//!
//! All ops of a kind (the same op of all layers) run one after the other, over and over. Their weights are too many for
//! most caches from L on; GPT-B's kinds fit into a large one, and may then go below a floor of memory's bandwidth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::halfway::{HalfwayStep, Pictures};
use super::{Floor, Meter, Rates, Spread};
use crate::Result;
use crate::backend::{Executor, Plan};
use crate::checkpoint::{self, DType, Entry};
use crate::config::{Preset, T5Config, VqConfig};
use crate::graph::{Cost, Draw, Elem, Extent, Graph, Load, Node, Phase, PhaseId, Role, Row};
use crate::models::{Held, Pixels, T5Graph, T5Shape, VqDecoder, VqEncoder};

/// Seconds that a round of one kind takes at least.
const ROUND: f64 = 0.02;

/// A part of a model.
pub struct Part {
    graph: Graph,
    phase: PhaseId,
    weights: checkpoint::Checkpoint,
    load: Load,
    rows: Vec<Row>,
    draws: Vec<Draw>,
    /// What is multiplied.
    precision: Elem,
}

impl Part {
    /// A decoding step of a transformer in the middle of `images` guided pictures of `latent_size` codes a side, with
    /// windows of W = `window` tokens each, or 1.
    pub fn step(
        executor: &dyn Executor,
        preset: &Preset,
        latent_size: usize,
        images: usize,
        window: usize,
        precision: Elem,
    ) -> Self {
        let pictures = Pictures { images, guidance: true, latent_size, window };
        let HalfwayStep { gpt, weights, load, rows, draws } = HalfwayStep::new(executor, preset, pictures, precision);
        let phase = gpt.lookahead.filter(|_| window > 1).map_or(gpt.step, |lookahead| lookahead.pass);
        Self { phase, graph: gpt.graph, weights, load, rows, draws, precision }
    }

    /// VQ-16's decoder for one picture.
    pub fn vq_decode(executor: &dyn Executor, image_size: usize, precision: Elem) -> Result<Self> {
        let config = VqConfig::released(&[1, 1, 2, 2, 4]);
        let side = image_size / config.downsample_size();
        let held = Held { weights: precision, activations: executor.activations() };
        let decoder = VqDecoder::build(&config, (side, side), 1, Pixels::U8, held)?;
        Ok(Self::of_picture(decoder.graph, decoder.decode, &config, precision))
    }

    /// VQ-16's encoder for one picture.
    pub fn vq_encode(executor: &dyn Executor, image_size: usize) -> Result<Self> {
        let config = VqConfig::released(&[1, 1, 2, 2, 4]);
        let precision = executor.activations();
        let encoder = VqEncoder::build(&config, (image_size, image_size), 1, Pixels::U8, precision)?;
        Ok(Self::of_picture(encoder.graph, encoder.encode, &config, precision))
    }

    fn of_picture(graph: Graph, phase: PhaseId, config: &VqConfig, precision: Elem) -> Self {
        Self {
            graph,
            phase,
            weights: checkpoint::random("vq", &Entry::all(config.tensors(), DType::F32), BTreeMap::new(), 0),
            load: Load { extent: Extent { rows: 1, draws: 0 }, keys: 0 },
            rows: Vec::new(),
            draws: Vec::new(),
            precision,
        }
    }

    /// A text of `tokens` tokens through the first blocks of T5-XL: all 24 would be 2.4 GB of random numbers, and each
    /// does the same.
    pub fn text_encode(executor: &dyn Executor, tokens: usize, precision: Elem) -> Self {
        const BLOCKS: usize = 2;
        let config = T5Config { num_layers: BLOCKS, ..T5Config::xl() };
        let activations = executor.activations();
        let encoder = T5Graph::new(&config, &T5Shape { rows: tokens, tokens, precision, activations });
        let dtype = if precision == Elem::Bf16 { DType::BF16 } else { DType::F32 };
        Self {
            phase: encoder.encode,
            graph: encoder.graph,
            weights: checkpoint::random("t5", &Entry::all(config.tensors(), dtype), BTreeMap::new(), 0),
            load: Load { extent: Extent { rows: tokens, draws: 0 }, keys: tokens },
            rows: (0..tokens as u32).map(|position| Row { slot: 0, position, token: 7, settled: 0 }).collect(),
            draws: Vec::new(),
            precision: activations,
        }
    }
}

/// What one kind of op measured.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    pub op: &'static str,
    /// The first of its kind: `layers.0.attention.wo`.
    pub node: String,
    /// How many of them the part has.
    pub count: usize,
    /// Seconds of one.
    pub seconds: Spread,
    /// Of one, at the rates of the same round as the median.
    #[serde(flatten)]
    pub floor: Floor,
    /// Time over floor, round by round.
    pub times_floor: Spread,
}

/// A part laid out with a phase for each kind of op.
pub struct KernelsBench {
    plan: Box<dyn Plan>,
    part: Part,
    /// By phase.
    kinds: Vec<(Vec<Node>, Cost)>,
}

impl KernelsBench {
    pub fn new(executor: &dyn Executor, part: Part) -> Result<Self> {
        let mut kinds: Vec<(Vec<Node>, Cost)> = Vec::new();
        for node in part.graph.nodes(part.phase) {
            let cost = node.op.cost(&part.graph, &part.load);
            match kinds.iter_mut().find(|(nodes, of)| nodes[0].op.name() == node.op.name() && *of == cost) {
                Some((nodes, _)) => nodes.push(node.clone()),
                None => kinds.push((vec![node.clone()], cost)),
            }
        }
        let phase = |(nodes, _): &(Vec<Node>, Cost)| Phase { name: nodes[0].name.clone(), nodes: nodes.clone() };
        let graph = part.graph.with_phases(kinds.iter().map(phase).collect());
        let mut plan = executor.plan(Arc::new(graph), &part.weights)?;
        fill(plan.as_mut())?;
        Ok(Self { plan, part, kinds })
    }

    /// Kinds of ops.
    pub fn kinds(&self) -> usize {
        self.kinds.len()
    }

    /// The first op of a kind.
    pub fn first(&self, kind: usize) -> &Node {
        &self.kinds[kind].0[0]
    }

    /// `rounds` rounds of one kind after one that does not count, each between two looks at the machine's rates.
    pub fn report(&mut self, kind: usize, meter: &Meter<'_>, rounds: usize) -> Result<KernelReport> {
        let count = self.kinds[kind].0.len();
        self.run(kind, 1)?;
        let times = (ROUND / (self.run(kind, 1)? * count as f64)).ceil().clamp(1.0, 1000.0) as usize;
        let precision = self.part.precision;
        // All of a kind follow each other.
        let bytes = count as u64 * self.kinds[kind].1.bytes();
        let rates = || -> Result<Rates> { meter.rates(precision, bytes) };
        let mut measured: Vec<(f64, Floor)> = Vec::new();
        for _ in 0..rounds.max(1) {
            let before = rates()?;
            let seconds = self.run(kind, times)?;
            measured.push((seconds, before.mean(rates()?).floor(&self.kinds[kind].1)));
        }
        measured.sort_by(|a, b| a.0.total_cmp(&b.0));
        let first = &self.kinds[kind].0[0];
        Ok(KernelReport {
            op: first.op.name(),
            node: first.name.clone(),
            count,
            seconds: Spread::of(measured.iter().map(|(seconds, _)| *seconds).collect()),
            floor: measured[measured.len() / 2].1,
            times_floor: Spread::of(measured.iter().map(|(seconds, floor)| seconds / floor.floor_seconds).collect()),
        })
    }

    /// Seconds of one op of a kind, all of them `times` times, or as often as the picture has tokens left.
    pub fn run(&mut self, kind: usize, times: usize) -> Result<f64> {
        // A draw moves its row on, a window at most its length, and they begin in the middle.
        let most = self.part.draws.first().map_or(times, |draw| (draw.token / draw.window.max(1)).max(1) as usize);
        let times = times.min(most);
        let phase = self.plan.graph().phase_id(kind);
        let tables: Vec<_> = self.plan.graph().buffer_ids().collect();
        for id in tables {
            match self.plan.graph().at(id).elem {
                Elem::Row => self.plan.write(id, 0, &self.part.rows)?,
                Elem::Draw => self.plan.write(id, 0, &self.part.draws)?,
                _ => {}
            }
        }
        self.plan.wait()?;
        let started = Instant::now();
        for _ in 0..times {
            self.plan.replay(phase, self.part.load.extent, 1)?;
        }
        self.plan.wait()?;
        Ok(started.elapsed().as_secs_f64() / (times * self.kinds[kind].0.len()) as f64)
    }
}

/// Numbers about 1 into everything that ops read: zeros are computed with less power, and so faster on some devices.
fn fill(plan: &mut dyn Plan) -> Result<()> {
    let ids: Vec<_> = plan.graph().buffer_ids().collect();
    for id in ids {
        let (buffer, len) = (plan.graph().at(id), plan.graph().len_of(id));
        if matches!(buffer.elem, Elem::F32 | Elem::Bf16) && buffer.role != Role::Input {
            let values: Vec<f32> = (0..len).map(|i| ((i * 7919 + 13) % 1024) as f32 / 256.0 - 2.0).collect();
            plan.write_floats(id, 0, &values)?;
        }
    }
    Ok(())
}

//! Runs a small graph on an executor and on its twin.

use std::collections::BTreeMap;
use std::sync::Arc;

use smalti::backend::cpu::CpuExecutor;
use smalti::backend::cpu::simd::Isa;
use smalti::backend::cuda::CudaExecutor;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::{Checkpoint, Tensor};
use smalti::graph::twin::Twin;
use smalti::graph::{BufferId, Draw, Elem, Extent, Graph, PhaseId, Row, Source};

use crate::common::{gpu, gpu_of, simt, skip};

/// Half a unit in the last place of f32: the relative error of one rounding.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The rows of a step that tests use: one, few, odd, more than a tile.
pub const ROW_COUNTS: [usize; 4] = [1, 2, 3, 17];

/// A seeded stream of roughly normal numbers (the sum of four uniforms, variance 1).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    pub fn bits(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn normal(&mut self) -> f32 {
        ((0..4).map(|_| self.uniform()).sum::<f32>() - 2.0) * 3f32.sqrt()
    }

    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }
}

/// A graph with everything that a run of it needs.
pub struct Case {
    pub graph: Arc<Graph>,
    pub phase: PhaseId,
    pub extent: Extent,
    /// By weight, as the executor will hold them (already rounded to bf16 where it is bf16).
    pub weights: Vec<Vec<f32>>,
    /// Initial values of some buffers; the others start at zero.
    pub buffers: Vec<(BufferId, Vec<f32>)>,
    pub rows: Option<(BufferId, Vec<Row>)>,
    pub draws: Option<(BufferId, Vec<Draw>)>,
}

/// What a run left in the buffers, by buffer: the bits of f32, bf16 and u32 elements, or bytes.
pub type Left = Vec<Vec<u8>>;

/// The device that [`Case::run_on_cuda`] calls so.
pub fn cuda(device: &str) -> CudaExecutor {
    match device {
        "gpu" => gpu(),
        _ => simt::executor(simt::WAYS[0]).ok(),
    }
    .expect("it was there")
}

impl Case {
    /// Random weights of variance 1 / fan-in (1 for vectors), and nothing in the buffers.
    pub fn new(graph: Graph, phase: PhaseId, extent: Extent, random: &mut Random) -> Self {
        let weights = graph
            .weights()
            .iter()
            .map(|weight| {
                let count = weight.shape.iter().product();
                let fan_in: usize = weight.shape[1..].iter().product();
                let values: Vec<f32> = match &weight.source {
                    Source::Constant(values) => values.to_vec(),
                    _ => random.normals(count).into_iter().map(|x| x / (fan_in as f32).sqrt()).collect(),
                };
                values.into_iter().map(|x| round(x, weight.elem)).collect()
            })
            .collect();
        Self { graph: Arc::new(graph), phase, extent, weights, buffers: Vec::new(), rows: None, draws: None }
    }

    /// Gives a buffer its values, rounded to the buffer's type.
    pub fn fill(&mut self, buffer: BufferId, values: Vec<f32>) {
        assert_eq!(values.len(), self.graph.len_of(buffer), "values fill `{}`", self.graph.at(buffer).name);
        let elem = self.graph.at(buffer).elem;
        self.buffers.push((buffer, values.into_iter().map(|x| round(x, elem)).collect()));
    }

    /// The twin after its run.
    pub fn twin(&self) -> Twin<'_> {
        let mut twin = self.twin_before();
        twin.run(self.phase, self.extent);
        twin
    }

    /// The twin with everything in place.
    pub fn twin_before(&self) -> Twin<'_> {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let mut twin = Twin::new(&self.graph, self.weights.iter().map(|values| wide(values)).collect());
        for (id, values) in &self.buffers {
            twin.buffers[id.index()] = wide(values);
        }
        if let Some((_, rows)) = &self.rows {
            twin.rows[..rows.len()].copy_from_slice(rows);
        }
        if let Some((_, draws)) = &self.draws {
            twin.draws[..draws.len()].copy_from_slice(draws);
        }
        twin
    }

    /// Runs on an executor and returns all buffers.
    pub fn run(&self, executor: &dyn Executor) -> Left {
        self.try_run(executor).expect("it runs")
    }

    /// The same; the error is of the run itself.
    pub fn try_run(&self, executor: &dyn Executor) -> smalti::Result<Left> {
        let tensors = self
            .graph
            .weights()
            .iter()
            .zip(&self.weights)
            .map(|(weight, values)| (weight.name.clone(), Tensor::from_f32(weight.shape.clone(), values)))
            .collect::<BTreeMap<_, _>>();
        let checkpoint = Checkpoint::from_tensors("test", tensors, BTreeMap::new());
        let mut plan = executor.plan(self.graph.clone(), &checkpoint).expect("the graph can be planned");
        for (id, values) in &self.buffers {
            let bytes: Vec<u8> = values.iter().flat_map(|&x| encode(x, self.graph.at(*id).elem)).collect();
            plan.write_bytes(*id, 0, &bytes).expect("written");
        }
        if let Some((id, rows)) = &self.rows {
            plan.write(*id, 0, rows).expect("written");
        }
        if let Some((id, draws)) = &self.draws {
            plan.write(*id, 0, draws).expect("written");
        }
        plan.run(self.phase, self.extent)?;
        Ok(read_all(plan.as_mut()))
    }

    /// Runs on every instruction set with one and two threads; all must leave the same bits. Returns them.
    pub fn run_everywhere(&self) -> Left {
        let mut lefts = self.run_in_each_order();
        assert!(lefts.len() == 1, "{} depends on the order of sums", self.graph.name());
        lefts.remove(0).1
    }

    /// Runs on every instruction set with one and two threads; all that add in the same order must leave the same bits.
    /// Returns those of each order, or once if they are the same.
    pub fn run_in_each_order(&self) -> Vec<(Order, Left)> {
        let mut lefts: Vec<(Order, Left)> = Vec::new();
        for order in [Order::Lanes, Order::Tiles] {
            let mut first: Option<Left> = None;
            for isa in order.instruction_sets() {
                for threads in [1, 2] {
                    let left = self.run(&CpuExecutor::with_isa(threads, isa));
                    let first = first.get_or_insert_with(|| left.clone());
                    for (id, (found, expected)) in self.graph.buffer_ids().zip(left.iter().zip(&*first)) {
                        let name = &self.graph.at(id).name;
                        assert!(found == expected, "`{name}` differs on {isa:?}, {threads} threads");
                    }
                }
            }
            let left = first.expect("every processor has portable code");
            if lefts.iter().all(|(_, other)| left != *other) {
                lefts.push((order, left));
            }
        }
        lefts
    }

    /// Runs the CUDA kernels in every way of [`simt::WAYS`], each checked against the others: all must leave the
    /// same bits. Returns them, and what a GPU leaves where there is one; nothing, and a line that says so, where
    /// neither is to be had.
    pub fn run_on_cuda(&self) -> Vec<(String, Left)> {
        let mut lefts: Vec<(String, Left)> = Vec::new();
        for way in simt::WAYS {
            let executor = match simt::executor(way) {
                Ok(executor) => executor,
                Err(reason) => {
                    skip(&format!("{} on the SIMT executor", self.graph.name()), &reason);
                    break;
                }
            };
            let left = self.run(&executor);
            let Some((_, first)) = lefts.first() else {
                lefts.push(("simt".into(), left));
                continue;
            };
            for (id, (found, expected)) in self.graph.buffer_ids().zip(left.iter().zip(first)) {
                assert!(found == expected, "`{}` differs in the way {way:?}", self.graph.at(id).name);
            }
        }
        lefts.extend(gpu().map(|executor| ("gpu".to_string(), self.run(&executor))));
        lefts
    }

    /// Runs the CUDA kernels as devices of different sizes have them, from one multiprocessor to more than there is
    /// work for, and so in all their shapes; all must leave the same bits. Returns them, and what a GPU leaves, as it is
    /// and as one of these sizes, where there is one; nothing, and a line that says so, where neither is to be had.
    pub fn run_on_cuda_of_all_sizes(&self) -> Vec<(&'static str, Left)> {
        self.run_on_cuda_of(&[1, 2, 4, 8, 16, 1 << 20])
    }

    /// The same on devices of these numbers of multiprocessors.
    pub fn run_on_cuda_of(&self, sizes: &[usize]) -> Vec<(&'static str, Left)> {
        // The smallest takes the largest shapes: these go through the checks, too.
        let simts = sizes.iter().enumerate().map(|(i, &multiprocessors)| {
            let way = if i == 0 { simt::WAYS[3] } else { simt::WAYS[2] };
            simt::executor_of(way, multiprocessors)
        });
        let gpus = [gpu()].into_iter().chain(sizes.iter().map(|&multiprocessors| gpu_of(multiprocessors)));
        let lefts = [("simt", self.run_alike(simts)), ("gpu", self.run_alike(gpus.flatten().map(Ok)))];
        let had = |(device, left): (&'static str, Result<Option<Left>, String>)| match left {
            Ok(left) => Some((device, left?)),
            Err(reason) => {
                skip(&format!("{} on the SIMT executor", self.graph.name()), &reason);
                None
            }
        };
        lefts.into_iter().filter_map(had).collect()
    }

    /// Runs on one executor after the other; all must leave the same bits. Returns them; `None` of no executors.
    fn run_alike(&self, executors: impl Iterator<Item = Result<CudaExecutor, String>>) -> Result<Option<Left>, String> {
        let mut first: Option<Left> = None;
        for executor in executors {
            let executor = executor?;
            let left = self.run(&executor);
            let first = first.get_or_insert_with(|| left.clone());
            for (id, (found, expected)) in self.graph.buffer_ids().zip(left.iter().zip(&*first)) {
                assert!(found == expected, "`{}` differs on {}", self.graph.at(id).name, executor.describe());
            }
        }
        Ok(first)
    }

    /// A buffer's values after a run.
    pub fn values(&self, left: &Left, id: BufferId) -> Vec<f64> {
        let bytes = &left[id.index()];
        match self.graph.at(id).elem {
            Elem::F32 => bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Elem::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| f64::from(half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()))
                .collect(),
            Elem::U32 => bytes.chunks_exact(4).map(|b| f64::from(u32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Elem::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            Elem::Row | Elem::Draw => panic!("a table has no values"),
        }
    }

    /// Runs every row of the step alone, as row 0, and compares the bits it leaves in the buffers `outputs`,
    /// one per row, with those it left among the others.
    pub fn check_rows_alone(&self, left: &Left, outputs: &[BufferId]) {
        self.check_rows_alone_in(Order::Lanes, left, outputs);
    }

    /// The same, of an order of [`Case::run_in_each_order`].
    pub fn check_rows_alone_in(&self, order: Order, left: &Left, outputs: &[BufferId]) {
        self.check_rows_alone_on(&CpuExecutor::with_isa(2, order.instruction_sets()[0]), left, outputs);
    }

    /// The same with the CUDA kernels, on the device of [`Case::run_on_cuda`] that left this.
    pub fn check_rows_alone_on_cuda(&self, device: &str, left: &Left, outputs: &[BufferId]) {
        self.check_rows_alone_on(&cuda(device), left, outputs);
    }

    fn check_rows_alone_on(&self, executor: &dyn Executor, left: &Left, outputs: &[BufferId]) {
        let (rows_id, rows) = self.rows.as_ref().expect("the case has rows");
        for r in 0..self.extent.rows {
            let alone = Self {
                graph: self.graph.clone(),
                phase: self.phase,
                extent: Extent { rows: 1, draws: 0 },
                weights: self.weights.clone(),
                buffers: self
                    .buffers
                    .iter()
                    .map(|(id, values)| {
                        let width: usize = self.graph.at(*id).shape.iter().product();
                        let per_row = self.graph.at(*id).per == smalti::graph::Per::Row;
                        let mut values = values.clone();
                        if per_row {
                            values.copy_within(r * width..(r + 1) * width, 0);
                        }
                        (*id, values)
                    })
                    .collect(),
                rows: Some((*rows_id, vec![rows[r]])),
                draws: None,
            };
            let found = alone.run(executor);
            for id in outputs {
                let size = self.graph.at(*id).shape.iter().product::<usize>() * self.graph.at(*id).elem.size();
                assert!(
                    found[id.index()][..size] == left[id.index()][r * size..(r + 1) * size],
                    "row {r} of `{}` alone differs from row {r} among {}",
                    self.graph.at(*id).name,
                    self.extent.rows
                );
            }
        }
    }
}

/// Every buffer's bytes.
fn read_all(plan: &mut dyn Plan) -> Left {
    let ids: Vec<BufferId> = plan.graph().buffer_ids().collect();
    ids.into_iter()
        .map(|id| {
            let mut bytes = vec![0; plan.graph().bytes_of(id)];
            plan.read_bytes(id, 0, &mut bytes).expect("read");
            bytes
        })
        .collect()
}

/// A value as a buffer of that type holds it.
fn round(x: f32, elem: Elem) -> f32 {
    if elem == Elem::Bf16 { half::bf16::from_f32(x).to_f32() } else { x }
}

fn encode(x: f32, elem: Elem) -> Vec<u8> {
    match elem {
        Elem::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        Elem::U32 => (x as u32).to_le_bytes().to_vec(),
        Elem::U8 => vec![x as u8],
        _ => x.to_le_bytes().to_vec(),
    }
}

/// An order in which the CPU executor's instruction sets sum the products of bf16 weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// By one chain of multiply-adds in ascending order, as with all other weights.
    Lanes,
    /// By AMX's tiles, in hardware where the processor has them, and emulated.
    Tiles,
}

impl Order {
    /// All of this processor that add so, best first.
    pub fn instruction_sets(self) -> Vec<Isa> {
        Isa::available().into_iter().filter(|isa| isa.by_tiles() == (self == Self::Tiles)).collect()
    }

    /// Rounding of a sum of `depth` products, relative to Σ |a b|; the inputs carry `input` roundings of their own.
    ///
    /// By lanes every multiply-add of a chain rounds once; with random signs partial sums grow with the root of their
    /// number, so the roundings walk to 0.9 rms, and five deviations hold however long the chain is. Of 32 products
    /// two chains of sixteen are summed by a tile, then both, then the sum so far takes them; an f32's three parts, all
    /// of its sign, have a sum each, and these are added at the end.
    pub fn sum_error(self, depth: usize, input: f64) -> f64 {
        let roundings = match self {
            Self::Lanes => (depth as f64).min(4.5),
            Self::Tiles => depth.div_ceil(32) as f64 + 17.0 + 2.0,
        };
        (roundings + input) * U
    }
}

/// Rounding of an RMSNorm of `width`, in units of [`U`]: half of the squares' sum, the root, the division
/// and two products.
pub fn norm_roundings(width: usize) -> f64 {
    (width as f64 / 16.0 + 5.0) / 2.0 + 4.0
}

/// Rounding of a sum of `depth` products in the order of the CUDA products, relative to Σ |a b|: the steps of one of
/// eight slices add 16 products each, then the slices are added. Tensor cores may cut where others round: a whole
/// unit in the last place.
pub fn cuda_sum_error(depth: usize) -> f64 {
    let slice = depth.div_ceil(16).div_ceil(8) * 16;
    (slice + 8) as f64 * 2.0 * U
}

/// Error of a sum Σ w y on CUDA whose y were rounded to bf16 twice, by the norm and by its weight: each term is off
/// by at most 2^-8 of itself, to either side alike. The sum is then off by more than 8 times the root of the squares'
/// sum once in 10^13 (Hoeffding's bound, 2 exp(-8^2 / 2)), and every term counts: one left out would be seen.
/// The norm's own f32 roundings and the sum's come on top.
pub fn cuda_normed_error(weights: &[f64], y: &[f64]) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (w, y) in weights.iter().zip(y) {
        sum += (w * y).abs();
        squares += (w * y) * (w * y);
    }
    8.0 / 256.0 * squares.sqrt() + (cuda_sum_error(y.len()) + norm_roundings(y.len()) * U) * sum
}

/// The largest Σ_k |weight[n, k] x[k]| over n.
pub fn largest_sum(twin: &Twin<'_>, weight: smalti::graph::WeightId, x: &[f64]) -> f64 {
    twin.weights[weight.index()]
        .chunks_exact(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| (w * x).abs()).sum())
        .fold(0.0, f64::max)
}

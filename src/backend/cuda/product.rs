//! What the matrix products share: which shape a run takes, and what all of their kernels need.
//!
//! Every shape gives the same bits (`kernels/product.cuh`), so the choice is one of time alone. It rests on a
//! model of what each multiprocessor must fetch and compute, with an H200's figures and what the machine code for it
//! shows, not on measurements.

use super::device::{Capacity, Kernel, Launch};
use super::fragments;
use super::kernels;
use super::lower::{Arrangement, Lowering};
use crate::graph::{BufferId, Elem, Graph, WeightId};

pub(super) const THREADS: usize = 256;
pub(super) const WARP: usize = 32;

/// Blocks of a thin shape that a multiprocessor gets at once: it has registers for three, and leaves one's to the next
/// launch.
const THIN_BLOCKS: usize = 2;

/// Bytes that a thread of a thin shape copies at once.
const COPY_BYTES: usize = 16;

/// Rows of a block of `norm_rows` and `norm_rows_f32`.
pub(super) const NORM_ROWS: usize = 8;

/// What a multiprocessor fetches per clock, about, as its share from L2 (6 TB/s in all) and from memory, what its shared
/// memory takes or gives, what it multiplies; what a launch of `norm_rows` costs beside a clock per column, and what
/// the barrier of a stage costs a block that has a multiprocessor to itself.
pub(super) const BYTES_PER_CLOCK: usize = 27;
const MEMORY_BYTES_PER_CLOCK: usize = 18;
pub(super) const SHARED_BYTES_PER_CLOCK: usize = 128;
pub(super) const FMAS_PER_CLOCK: usize = 1024;
const LAUNCH_CLOCKS: usize = 2500;
const BARRIER_CLOCKS: usize = 60;

/// What the last part of a block to arrive waits for: its own count, and what the others left.
const MERGE_CLOCKS: usize = 3000;

/// Slices of K, of whole steps of 16, each a sum by itself (`kernels/product.cuh`).
const SLICES: usize = 8;
const STEP: usize = 16;

/// Parts of K that a product of at most so many rows may be split into.
const MOST_PARTS: usize = 4;
const SPLIT_ROWS: usize = 512;

/// Sums that the parts of a tile leave for the last of them to add: the first part's, and of each slice behind it.
const fn partials(parts: usize) -> usize {
    1 + SLICES - SLICES.div_ceil(parts)
}

/// A kernel of a product, and what one block of it does.
pub(super) struct Shape {
    pub kernel: Kernel,
    /// Rows of weights, of both matrices where there are two.
    pub weights: usize,
    /// Rows of activations.
    pub rows: usize,
    pub way: Way,
}

/// How a block goes through K.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// With so many copies of weights under way, of each thread: DEPTH * TILES of `kernels/product_thin.cuh`.
    Thin {
        copies: usize,
    },
    Wide(Pipeline),
}

/// Stages of [`STAGE_DEPTH`] columns in shared memory, some of them under way.
#[derive(Clone, Copy)]
pub(super) struct Pipeline {
    stages: usize,
    /// A warp's weights and rows, which it loads from shared memory.
    patch: [usize; 2],
    /// Blocks for which a multiprocessor has room.
    together: usize,
}

/// Columns of a stage.
const STAGE_DEPTH: usize = 64;

impl Shape {
    const fn thin(kernel: Kernel, weights: usize, rows: usize, copies: usize) -> Self {
        Self { kernel, weights, rows, way: Way::Thin { copies } }
    }

    const fn wide(kernel: Kernel, weights: usize, rows: usize, pipeline: Pipeline) -> Self {
        Self { kernel, weights, rows, way: Way::Wide(pipeline) }
    }

    pub fn is_wide(&self) -> bool {
        matches!(self.way, Way::Wide(_))
    }

    /// Whether it normalizes its rows itself, where a norm comes first: once in every block.
    pub fn normalizes(&self) -> bool {
        !self.is_wide() && self.rows == NORM_ROWS
    }

    /// Bytes of a stage, weights and rows.
    fn stage_bytes(&self) -> usize {
        (self.weights + self.rows) * STAGE_DEPTH * Elem::Bf16.size()
    }

    /// Dynamic shared memory. Of a thin shape, the weights under way; of a wide one the stages in bf16, and in their place,
    /// later, the sums.
    fn shared_bytes(&self) -> usize {
        match self.way {
            Way::Thin { copies } => THREADS * copies * COPY_BYTES,
            Way::Wide(Pipeline { stages, .. }) => {
                (stages * self.stage_bytes()).max(self.rows * (self.weights + 4) * size_of::<f32>())
            }
        }
    }

    /// All shared memory but that for a norm: a thin shape's sums of slices, rows apart by 20 columns of a tile, stand beside
    /// its weights.
    fn block_bytes(&self) -> usize {
        let sums = match self.way {
            Way::Thin { .. } => SLICES * self.weights.div_ceil(STEP) * self.rows * 20 * size_of::<f32>(),
            Way::Wide(_) => 0,
        };
        // Some more, of few words.
        self.shared_bytes() + sums + 512
    }
}

/// The shapes of a product with these kernels: three thin ones of 8, 16 and 32 rows, the first with `thin_weights` rows
/// of weights and `thin_copies` of a thread under way, and the only one to normalize its rows, and five wide ones of
/// 64 x 32, 64 x 64, 64 x 128, 128 x 128 and 160 x 128.
pub(super) const fn shapes(thin_weights: usize, thin_copies: usize, kernels: [Kernel; 8]) -> [Shape; 8] {
    let [thin_8, thin_16, thin_32, wide_64x32, wide_64x64, wide_64x128, wide_128x128, wide_160x128] = kernels;
    [
        Shape::thin(thin_8, thin_weights, 8, thin_copies),
        Shape::thin(thin_16, 32, 16, 16),
        Shape::thin(thin_32, 32, 32, 8),
        Shape::wide(wide_64x32, 64, 32, Pipeline { stages: 4, patch: [16, 16], together: 4 }),
        Shape::wide(wide_64x64, 64, 64, Pipeline { stages: 4, patch: [32, 16], together: 2 }),
        Shape::wide(wide_64x128, 64, 128, Pipeline { stages: 4, patch: [32, 32], together: 2 }),
        Shape::wide(wide_128x128, 128, 128, Pipeline { stages: 3, patch: [64, 32], together: 1 }),
        Shape::wide(wide_160x128, 160, 128, Pipeline { stages: 3, patch: [80, 32], together: 1 }),
    ]
}

/// The sizes of a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// R
    pub rows: usize,
    /// N, of each matrix
    pub width: usize,
    /// K
    pub depth: usize,
    /// 2 where the epilogue wants two products of the same input.
    pub matrices: usize,
    /// Whether a norm comes first.
    pub normed: bool,
}

impl Product {
    /// The shape that takes the least time by the model, of those for which a block has room; of equals, the one with the
    /// smallest blocks.
    pub fn choose<'s>(&self, shapes: &'s [Shape; 8], capacity: Capacity) -> &'s Shape {
        let fit = shapes.iter().filter(|shape| self.fits(shape, capacity));
        fit.min_by_key(|shape| self.clocks(shape, 1, capacity)).expect("one of 64 x 32 has room on every card")
    }

    /// The same where K may be split among blocks, and into how many parts.
    pub fn choose_split<'s>(&self, shapes: &'s [Shape; 8], capacity: Capacity) -> (&'s Shape, usize) {
        let whole = self.choose(shapes, capacity);
        let split = shapes.iter().flat_map(|shape| (2..=MOST_PARTS).map(move |parts| (shape, parts)));
        let fit =
            |(shape, _): &(&Shape, usize)| shape.is_wide() && self.fits(shape, capacity) && self.rows <= SPLIT_ROWS;
        [(whole, 1)]
            .into_iter()
            .chain(split.filter(fit))
            .min_by_key(|(shape, parts)| self.clocks(shape, *parts, capacity))
            .expect("there is the whole one")
    }

    /// Room for what the parts of the largest run's products leave, whatever shape they take.
    pub fn split_scratch_bytes(&self) -> usize {
        let rows = self.rows.min(SPLIT_ROWS).next_multiple_of(128);
        // Blocks of at most 160 columns: the last one's end behind the others'.
        partials(MOST_PARTS) * rows * (self.width + 160) * size_of::<f32>()
    }

    /// A counter for each block of the smallest wide shape.
    pub fn split_counters(&self) -> usize {
        self.rows.min(SPLIT_ROWS).div_ceil(32) * self.width.div_ceil(64)
    }

    /// Shared memory for the norm's weights, where the shape normalizes its rows.
    fn norm_bytes(&self, shape: &Shape) -> usize {
        if self.normed && shape.normalizes() { norm_bytes(self.depth) } else { 0 }
    }

    /// All shared memory of a block.
    fn block_bytes(&self, shape: &Shape) -> usize {
        shape.block_bytes() + self.norm_bytes(shape)
    }

    fn fits(&self, shape: &Shape, capacity: Capacity) -> bool {
        self.block_bytes(shape) <= capacity.shared_bytes
    }

    /// Blocks of rows and blocks of columns.
    fn blocks(&self, shape: &Shape) -> [usize; 2] {
        [self.rows.div_ceil(shape.rows), (self.width * self.matrices).div_ceil(shape.weights)]
    }

    fn clocks(&self, shape: &Shape, parts: usize, capacity: Capacity) -> usize {
        let multiprocessors = capacity.multiprocessors;
        let elem = if self.normed && shape.normalizes() { Elem::F32 } else { Elem::Bf16 };
        let bytes = shape.weights * Elem::Bf16.size() + shape.rows.min(self.rows) * elem.size();
        // Of a stage's columns: by one, small sizes would not differ.
        let fetched = STAGE_DEPTH * bytes / BYTES_PER_CLOCK;
        let multiplied = STAGE_DEPTH * shape.weights * shape.rows / FMAS_PER_CLOCK;
        let tiles = self.blocks(shape).iter().product::<usize>();
        let blocks = parts * tiles;
        let all = match &shape.way {
            // Blocks share what memory brings, whichever multiprocessor they are on.
            Way::Thin { .. } => {
                self.depth * fetched.max(multiplied) / STAGE_DEPTH * blocks.max(multiprocessors) / multiprocessors
            }
            Way::Wide(Pipeline { patch: [weights, rows], together, .. }) => {
                // Each warp loads its patch, and all is copied in once.
                let loaded = THREADS / WARP * (weights + rows) * STAGE_DEPTH * Elem::Bf16.size();
                let worked = multiplied.max((loaded + shape.stage_bytes()) / SHARED_BYTES_PER_CLOCK);
                let busy = fetched.max(worked) * blocks.div_ceil(multiprocessors);
                let together = capacity.room(self.block_bytes(shape)).min(*together);
                let latency = fetched.max(worked + BARRIER_CLOCKS) * blocks.div_ceil(multiprocessors * together);
                let part = self.depth.div_ceil(STEP).div_ceil(SLICES) * STEP * SLICES.div_ceil(parts);
                let stages = self.depth.min(part).div_ceil(STAGE_DEPTH);
                let merge = match parts {
                    1 => 0,
                    // Every block leaves the sums of its slices, and one of each tile takes what all have left.
                    _ => {
                        let bytes = shape.weights * shape.rows.min(self.rows) * size_of::<f32>();
                        let left = SLICES.div_ceil(parts) * blocks.div_ceil(multiprocessors);
                        let taken = partials(parts) * tiles.div_ceil(multiprocessors);
                        MERGE_CLOCKS + (left + taken) * bytes / BYTES_PER_CLOCK
                    }
                };
                stages * busy.max(latency) + merge
            }
        };
        // Blocks with the same weights run at the same time: these come from memory once.
        let memory = self.width * self.matrices * self.depth * Elem::Bf16.size() / MEMORY_BYTES_PER_CLOCK;
        let norm = if self.normed && !shape.normalizes() { LAUNCH_CLOCKS + self.depth } else { 0 };
        all.max(memory / multiprocessors) + norm
    }

    /// The launch, still without arguments. Blocks that normalize their rows are no more than have room at once, and take
    /// several groups of columns then. As many as have room: fewer with as many groups each would be even among blocks, but
    /// not among multiprocessors, of which some would have one block and some two.
    pub fn launch(&self, shape: &Shape, capacity: Capacity) -> Launch {
        let [rows, columns] = self.blocks(shape);
        let room = capacity.room(self.block_bytes(shape)).min(THIN_BLOCKS) * capacity.multiprocessors;
        let blocks = match self.normed && shape.normalizes() {
            true => columns.min(room / rows).max(1),
            false => columns,
        };
        Launch::new(shape.kernel, [rows, blocks, 1], THREADS).shared(shape.shared_bytes() + self.norm_bytes(shape))
    }
}

/// Shared memory for the weights of a norm over `width` columns: whole steps.
pub(super) fn norm_bytes(width: usize) -> usize {
    width.next_multiple_of(STEP) * size_of::<f32>()
}

/// f32 rows that go through RMSNorm before the product.
pub(super) struct NormedInput {
    /// (R, K)
    pub x: BufferId,
    /// (K)
    pub norm: WeightId,
    pub eps: f32,
    /// K
    pub dim: usize,
}

impl NormedInput {
    /// The launch with the arguments that stand for the input.
    pub fn pass(&self, cx: &Lowering<'_>, shape: &Shape, launch: Launch) -> Launch {
        match shape.normalizes() {
            true => launch.arg(cx.buffer(self.x)).arg(cx.weight(self.norm)).arg(self.eps),
            false => launch.arg(cx.scratch),
        }
    }

    /// The product's launches: before a shape that does not normalize its rows, another does.
    pub fn launches(&self, cx: &Lowering<'_>, shape: &Shape, product: Launch) -> Vec<Launch> {
        if shape.normalizes() {
            return vec![product];
        }
        let norm = Launch::new(kernels::NORM_ROWS, [cx.extent.rows.div_ceil(NORM_ROWS), 1, 1], THREADS)
            .shared(norm_bytes(self.dim))
            .arg(cx.scratch)
            .arg(cx.buffer(self.x))
            .arg(cx.weight(self.norm))
            .arg(self.eps)
            .size(cx.extent.rows)
            .size(self.dim);
        vec![norm, product]
    }

    /// Room for the normalized rows.
    pub fn scratch_bytes(&self, graph: &Graph) -> usize {
        graph.max().rows * self.dim * Elem::Bf16.size()
    }

    pub fn check(&self, graph: &Graph) -> Result<(), String> {
        check_weight(graph, self.norm, Elem::F32)?;
        check_buffer(graph, self.x, Elem::F32)?;
        check_depth(self.dim)
    }
}

/// Rows are read 16 bytes at a time.
pub(super) fn check_depth(depth: usize) -> Result<(), String> {
    match depth.is_multiple_of(8) {
        true => Ok(()),
        false => Err(format!("needs an input of a width divisible by 8, found {depth}")),
    }
}

pub(super) fn check_weight(graph: &Graph, id: WeightId, elem: Elem) -> Result<(), String> {
    let weight = graph.weight_at(id);
    match weight.elem == elem {
        true => Ok(()),
        false => Err(format!("needs `{}` in {}, found {}", weight.name, elem.name(), weight.elem.name())),
    }
}

pub(super) fn check_buffer(graph: &Graph, id: BufferId, elem: Elem) -> Result<(), String> {
    let buffer = graph.at(id);
    match buffer.elem == elem {
        true => Ok(()),
        false => Err(format!("needs `{}` in {}, found {}", buffer.name, elem.name(), buffer.elem.name())),
    }
}

/// A (N, K) weight in the order that the kernels read.
pub(super) fn fragments_of(weight: WeightId, n: usize, k: usize) -> (WeightId, Arrangement) {
    (weight, Arrangement::new("fragments", move |values| fragments::pack(values, n, k)))
}

#[cfg(test)]
mod tests {
    use super::super::lower::Lower;
    use super::*;
    use crate::graph::{Extent, Per, Role, Source, ops};

    const SHAPES: [Shape; 8] = shapes(
        16,
        8,
        [
            kernels::NORM_LOGITS_THIN_8,
            kernels::NORM_LOGITS_THIN_16,
            kernels::NORM_LOGITS_THIN_32,
            kernels::NORM_LOGITS_WIDE_64X32,
            kernels::NORM_LOGITS_WIDE_64X64,
            kernels::NORM_LOGITS_WIDE_64X128,
            kernels::NORM_LOGITS_WIDE_128X128,
            kernels::NORM_LOGITS_WIDE_160X128,
        ],
    );

    #[test]
    fn what_the_kernels_need_is_said() {
        let mut graph = Graph::new("product", Extent { rows: 2, draws: 0 });
        let op = |graph: &mut Graph, input: Elem, weight: Elem, depth: usize| ops::LinearResidual {
            x: graph.buffer("x", Elem::F32, Per::Row, &[32], Role::Scratch),
            input: graph.buffer("heads", input, Per::Row, &[depth], Role::Scratch),
            weight: graph.weight(format!("wo.{depth}"), weight, &[32, depth], Source::Tensor),
            width: 32,
            depth,
        };
        assert_eq!(op(&mut graph, Elem::Bf16, Elem::Bf16, 40).check(&graph), Ok(()));
        for (input, weight, depth, said) in [
            (Elem::Bf16, Elem::Bf16, 36, "needs an input of a width divisible by 8, found 36"),
            (Elem::F32, Elem::Bf16, 48, "needs `heads` in bf16, found f32"),
            (Elem::Bf16, Elem::F32, 56, "needs `wo.56` in bf16, found f32"),
        ] {
            assert_eq!(op(&mut graph, input, weight, depth).check(&graph), Err(said.into()));
        }
    }

    const fn card(multiprocessors: usize) -> Capacity {
        Capacity { multiprocessors, shared_bytes: 227 * 1024 }
    }

    #[test]
    fn a_block_has_room_for_its_stages() {
        let bytes: Vec<usize> = SHAPES.iter().map(Shape::shared_bytes).collect();
        assert_eq!(bytes, [32768, 65536, 32768, 49152, 65536, 98304, 98304, 110592]);
        // Of their own arrays nvcc says what they take.
        let more: Vec<usize> = SHAPES[..3].iter().map(|shape| shape.block_bytes() - shape.shared_bytes()).collect();
        assert!(more.iter().zip([5376, 20480, 40960]).all(|(more, own)| (own..=own + 512).contains(more)), "{more:?}");
        let product = Product { rows: 256, width: 9600, depth: 3200, matrices: 1, normed: true };
        let chosen =
            |shared_bytes| product.choose(&SHAPES, Capacity { multiprocessors: 132, shared_bytes }).kernel.name;
        assert_eq!(chosen(227 * 1024), "norm_logits_wide_160x128");
        // Compute capability 8.6 and 8.9, then less than any card has.
        assert_ne!(chosen(99 * 1024), "norm_logits_wide_160x128");
        assert_eq!(chosen(64 * 1024), "norm_logits_wide_64x32");
    }

    #[test]
    fn k_is_split_where_columns_are_few() {
        let parts = |rows, width, depth| {
            let product = Product { rows, width, depth, matrices: 1, normed: false };
            let (shape, parts) = product.choose_split(&SHAPES, card(132));
            assert!(parts == 1 || shape.is_wide());
            parts
        };
        // w2 of XL and of 3B: 80 and 100 blocks of the best shape otherwise.
        assert!(parts(256, 1280, 3584) > 1 && parts(256, 3200, 8704) > 1);
        // wo of XL: what the parts leave would cost more than it spares.
        assert_eq!(parts(256, 1280, 1280), 1);
        // One row, columns for all, and more rows than there is room for.
        assert_eq!([parts(2, 1280, 3584), parts(512, 16384, 1280), parts(513, 1280, 3584)], [1; 3]);
    }

    #[test]
    fn what_parts_leave_has_room() {
        for (rows, width) in [(1, 1), (33, 65), (256, 1280), (512, 3200), (600, 100)] {
            let most = Product { rows, width, depth: 1024, matrices: 1, normed: false };
            for shape in SHAPES.iter().filter(|shape| shape.is_wide()) {
                for (parts, rows) in (2..=MOST_PARTS).flat_map(|parts| [1, rows.min(SPLIT_ROWS)].map(|n| (parts, n))) {
                    let [row_blocks, column_blocks] = Product { rows, ..most }.blocks(shape);
                    let blocks = row_blocks * column_blocks;
                    let left = blocks * partials(parts) * shape.rows * shape.weights * size_of::<f32>();
                    assert!(left <= most.split_scratch_bytes() && blocks <= most.split_counters(), "{rows} x {width}");
                }
            }
        }
    }

    #[test]
    fn few_rows_take_the_smallest_tiles_and_many_the_largest() {
        let chosen = |rows, width, depth, normed| {
            let product = Product { rows, width, depth, matrices: 1, normed };
            product.choose(&SHAPES, card(132)).kernel.name
        };
        for (width, depth, normed) in [(2304, 768, true), (768, 2048, false), (9600, 3200, true), (3200, 8704, false)] {
            assert_eq!(chosen(2, width, depth, normed), "norm_logits_thin_8");
        }
        assert_eq!(chosen(256, 9600, 3200, true), "norm_logits_wide_160x128");
        // The norm's own launch is worth it where the tiles are many.
        assert_eq!(chosen(16, 9600, 3200, true), "norm_logits_thin_16");
        assert_eq!(chosen(16, 2304, 768, true), "norm_logits_thin_8");
    }

    #[test]
    fn blocks_that_normalize_are_as_many_as_have_room() {
        let grid = |rows, width, multiprocessors| {
            let product = Product { rows, width, depth: 3200, matrices: 1, normed: true };
            product.launch(&SHAPES[0], card(multiprocessors)).grid
        };
        // 600 groups of 16 columns: two or three for each block.
        assert_eq!(grid(2, 9600, 132), [1, 264, 1]);
        assert_eq!(grid(2, 4000, 132), [1, 250, 1]);
        // Two blocks of rows share the room.
        assert_eq!(grid(16, 9600, 132), [2, 132, 1]);
        assert_eq!(grid(2, 40, 1), [1, 2, 1]);
        // Where rows alone fill it, a block takes all columns.
        assert_eq!(grid(8 * 1000, 32, 132), [1000, 1, 1]);
        for multiprocessors in [1, 20, 108, 132, 142] {
            for (rows, width) in (1..40).flat_map(|rows| (1..200).map(move |width| (8 * rows, 16 * width))) {
                let [rows, columns, _] = grid(rows, width, multiprocessors);
                assert!(rows * columns <= 2 * multiprocessors as u32 || columns == 1, "{rows} x {columns}");
            }
        }
    }

    #[test]
    fn the_cases_of_the_tests_take_every_shape() {
        // Of tests/ops: linear and linear_residual; norm_gated_gelu, norm_linear, norm_logits and norm_swiglu;
        // norm_qkv_rope.
        for (normed, sizes) in
            [(false, [(312, 104), (48, 768)]), (true, [(312, 104), (48, 768)]), (true, [(360, 120), (2304, 768)])]
        {
            let mut chosen = std::collections::BTreeSet::new();
            for (width, depth) in sizes {
                for rows in [1, 2, 7, 15, 16, 31, 63, 255].into_iter().filter(|rows| width < 2000 || *rows < 32) {
                    let product = Product { rows, width, depth, matrices: 1, normed };
                    let names = [1, 2, 4, 8, 16, 1 << 20].map(|n| product.choose(&SHAPES, card(n)).kernel.name);
                    chosen.extend(names);
                }
            }
            assert_eq!(chosen.len(), SHAPES.len(), "{sizes:?} take {chosen:?} alone");
        }
    }
}

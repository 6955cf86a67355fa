//! Matches `graph::ops::conv2d`.
//!
//! A task is a block of an image's output and a group of its channels. A member copies what the block sees
//! into its own scratch (normalized, activated, with the zero border), multiplies, and writes the block; where there are
//! tiles, row after row, one copied while another is multiplied.
//! Every output element has one order of summation, so tasks may be dealt and cut in any way.
//!
//! Where the weight is bf16, so is what it meets: rounded once, behind normalization and transform; sums stay f32.

mod direct;
mod load;
mod moments;
mod store;
mod tiles;
mod winograd;

use std::ops::Range;

use self::load::Source;
use self::store::Sink;
use self::winograd::{Doubled, Square};
use super::panels::WIDTH;
use super::simd::Isa;
use super::simd::tiles::SIDE;
use super::{Arrangement, Context, Scratch, panels};
use crate::graph::ops::{Conv2d, Kernel};
use crate::graph::{Elem, Graph, WeightId};

/// How a convolution is computed; decided by its shape and by what multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Tap by tap.
    Direct,
    /// 36 products for the 144 multiplications of a 4 x 4 block.
    WinogradSquare,
    /// 25 products for a 4 x 4 block of a doubled map.
    WinogradDoubled,
    /// Tap by tap, of a doubled map by sums of taps; tiles multiply faster than anything transforms.
    Tiles,
}

impl Method {
    fn of(op: &Conv2d, factors: Factors) -> Self {
        // Transformed weights are 4 (25/9) times as many: 127 MB more for VQ-16's decoder. Above this size that
        // would cost much memory and save little time: such layers work on the smallest maps.
        const MOST: usize = 256 * 256;
        let fits = op.channels_in.is_multiple_of(16) && op.channels_out.is_multiple_of(16);
        match op.kernel {
            _ if factors == Factors::Tiles => Self::Tiles,
            Kernel::Square if fits && op.channels_in * op.channels_out <= MOST => Self::WinogradSquare,
            Kernel::Upsample if fits => Self::WinogradDoubled,
            _ => Self::Direct,
        }
    }
}

/// What a convolution multiplies, and by which instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Factors {
    F32,
    Pairs,
    Tiles,
}

impl Factors {
    fn of(op: &Conv2d, graph: &Graph, isa: Isa) -> Self {
        // Pairs of channels want an even number of them; the encoder's three are soon multiplied.
        let pairs = graph.weight_at(op.weight).elem == Elem::Bf16 && op.channels_in.is_multiple_of(2);
        Self::by(isa, pairs)
    }

    fn by(isa: Isa, pairs: bool) -> Self {
        match (pairs, isa.by_tiles()) {
            (false, _) => Self::F32,
            (true, false) => Self::Pairs,
            (true, true) => Self::Tiles,
        }
    }

    /// Channels of an element.
    fn per(self) -> usize {
        if self == Self::F32 { 1 } else { 2 }
    }
}

/// The form in which the op reads its weight.
pub(super) fn arrangement(op: &Conv2d, graph: &Graph, isa: Isa) -> (WeightId, Arrangement) {
    let factors = Factors::of(op, graph, isa);
    let method = Method::of(op, factors);
    let (c, n) = (op.channels_in, op.channels_out);
    let taps = op.kernel.side() * op.kernel.side();
    let len = |positions| panels::packed_len(n, c, positions);
    let arrangement = match method {
        Method::Direct => {
            Arrangement::new("panels", len(taps), move |oihw, packed| panels::pack(oihw, n, c, taps, packed))
        }
        Method::WinogradSquare => Arrangement::new("winograd_square", len(36), move |oihw, packed| {
            winograd::transform_weight::<_, 6, 6>(Square, oihw, c, packed);
        }),
        Method::WinogradDoubled => Arrangement::new("winograd_doubled", len(25), move |oihw, packed| {
            winograd::transform_weight::<_, 4, 5>(Doubled, oihw, c, packed);
        }),
        Method::Tiles => {
            let op = op.clone();
            Arrangement::new("tiles", tiles::packed_len(&op), move |oihw, packed| tiles::pack(&op, oihw, packed))
        }
    };
    if factors == Factors::F32 {
        return (op.weight, arrangement);
    }
    let arrangement = match method {
        Method::Direct => arrangement.halved("panels_bf16", panels::pair::<WIDTH>),
        Method::WinogradSquare => arrangement.halved("winograd_square_bf16", panels::pair::<WIDTH>),
        Method::WinogradDoubled => arrangement.halved("winograd_doubled_bf16", panels::pair::<WIDTH>),
        // Of a doubled map other taps.
        Method::Tiles if op.kernel == Kernel::Upsample => {
            arrangement.halved("tiles_doubled_bf16", panels::pair::<SIDE>)
        }
        Method::Tiles => arrangement.halved("tiles_bf16", panels::pair::<SIDE>),
    };
    (op.weight, arrangement)
}

pub(super) fn scratch(op: &Conv2d, graph: &Graph, isa: Isa) -> Scratch {
    let factors = Factors::of(op, graph, isa);
    let own = match Method::of(op, factors) {
        Method::Direct => direct::scratch(op, factors.per()),
        Method::WinogradSquare => winograd::scratch::<6, 6>(op, 4),
        Method::WinogradDoubled => winograd::scratch::<4, 5>(op, 2),
        Method::Tiles => tiles::scratch(op),
    };
    // Behind the block's own: the normalization's factor and summand of each channel.
    Scratch { shared: 0, own: own + 2 * op.channels_in }
}

pub(super) fn run(op: &Conv2d, cx: &Context<'_>) {
    let weight = cx.weight(op.weight);
    let pairs = weight.elem() == Elem::U32;
    let factors = Factors::by(cx.isa, pairs);
    let method = Method::of(op, factors);
    let block = match method {
        Method::Direct => direct::block(op, factors.per()),
        Method::Tiles => tiles::strip(op, cx.extent.rows, cx.member.team_size()),
        _ => winograd::block(op),
    };
    let ((height, width), panels) = match method {
        Method::Tiles => (tiles::grid(op), tiles::panels(op)),
        _ => (op.kernel.output(op.size), op.channels_out.div_ceil(WIDTH)),
    };
    let across = width.div_ceil(block.1);
    let blocks = height.div_ceil(block.0) * across;
    // Cut the channels too where there are fewer blocks than keep everybody busy to the end.
    let wanted = (4 * cx.member.team_size()).div_ceil((blocks * cx.extent.rows).max(1));
    let group = panels.div_ceil(wanted.min(panels));
    let groups = panels.div_ceil(group);
    cx.member.deal(cx.extent.rows * blocks * groups, 1, |tasks| {
        for task in tasks {
            let (image, block_at, group_at) = (task / groups / blocks, task / groups % blocks, task % groups);
            let (y, x) = (block_at / across * block.0, block_at % across * block.1);
            let task = Task {
                source: Source::new(op, cx, image),
                sink: Sink::new(op, cx, image),
                weight: if pairs { weight.ptr::<u32>().cast() } else { weight.ptr::<f32>().cast() },
                rows: y..(y + block.0).min(height),
                columns: x..(x + block.1).min(width),
                panels: group_at * group..((group_at + 1) * group).min(panels),
                scratch: cx.own_scratch().wrapping_add(2 * op.channels_in),
            };
            // SAFETY: buffers, weights and scratch have the sizes that the graph, `arrangement` and `scratch` gave
            // them for this op; a task's block and panels are its own.
            unsafe {
                match (method, pairs) {
                    (Method::Tiles, _) => tiles::run(cx.isa, &task, op),
                    (Method::Direct, false) => direct::run::<f32>(cx.isa, &task, op),
                    (Method::Direct, true) => direct::run::<u32>(cx.isa, &task, op),
                    (Method::WinogradSquare, false) => winograd::square::<f32>(cx.isa, &task, op),
                    (Method::WinogradSquare, true) => winograd::square::<u32>(cx.isa, &task, op),
                    (Method::WinogradDoubled, false) => winograd::doubled::<f32>(cx.isa, &task, op),
                    (Method::WinogradDoubled, true) => winograd::doubled::<u32>(cx.isa, &task, op),
                }
            }
        }
    });
    if let Some(left) = op.moments {
        moments::run(op, cx, cx.buffer(left));
    }
}

/// One block of one image's output, and a group of its channels.
struct Task {
    source: Source,
    sink: Sink,
    /// As `arrangement` made it, of the type that the kernel is told.
    weight: *const (),
    /// Output rows; of a doubled map by tiles, the rows of the map that they lie over.
    rows: Range<usize>,
    /// Output columns, likewise.
    columns: Range<usize>,
    /// Groups of `panels::WIDTH` output channels; of a doubled map by tiles, of each of the outputs over a pixel.
    panels: Range<usize>,
    scratch: *mut f32,
}

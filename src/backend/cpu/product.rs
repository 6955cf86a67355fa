//! y[r, n] = Σ_k weight[n, k] * x[r, k], the inner loop of every generation product.
//!
//! bf16 weights go by [`tiles`] where the processor has them, everything else by [`lanes`]. There is one order of
//! summation per output element, whatever the number of rows; by lanes one chain of fused multiply-adds in ascending k.
//! Tiles of several weight rows and several activation rows only decide which elements are computed side by side.

mod lanes;
mod rows;
mod tiles;

use std::ops::{Range, RangeInclusive};

pub use self::rows::{Input, Rows, normalize, normalize_into, rows, scratch};
use super::Context;
use super::memory::Arrangement;
use super::simd::{Isa, LINE, prefetch};
use crate::graph::{Elem, Graph, Weight, WeightId};

/// Takes finished sums.
pub trait Epilogue {
    /// Elements `n` of `rows` rows come next: asks memory for where they go, if that is seldom in a cache.
    #[inline(always)]
    fn expect(&self, _rows: usize, _n: Range<usize>) {}

    /// `sums[i]` is y[r, n + i]. Of a whole weight n is even, so a rotation's pairs stay together.
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]);
}

/// Rows of a weight matrix, and how many activation rows they meet.
#[derive(Clone, Copy)]
pub struct Product {
    pub weight: Matrix,
    /// The weight's row that counts as n = 0.
    pub first: usize,
    /// K
    pub depth: usize,
    /// R
    pub rows: usize,
}

impl Product {
    /// Weight rows that a member takes at a time, a multiple of the first, so a rotation's pairs stay together: a long
    /// stream while much is left, a short one at the end.
    pub fn pieces(&self) -> RangeInclusive<usize> {
        self.weight.together()..=128
    }

    /// Where the panel or strip of the weight's row `n` begins; it need not exist.
    pub fn address(&self, n: usize) -> *const u8 {
        let at = self.weight.at(self.first + n, self.depth);
        match self.weight {
            Matrix::F32(weight) => weight.wrapping_add(at).cast(),
            Matrix::Bf16(weight) => weight.wrapping_add(at).cast(),
            Matrix::Tiles(strips) => strips.at.wrapping_add(at).cast(),
        }
    }

    /// Asks memory for what is read of the weight from row `n` on: for AHEAD bytes, `part` times as many behind the first.
    /// Of panels that are read side by side, it is the first one's.
    pub fn ask(&self, n: usize, part: usize) {
        let (streams, apart) = match self.weight {
            Matrix::Tiles(strips) => (tiles::STREAMS, size_of::<u32>() * strips.stride),
            _ => (1, 0),
        };
        let each = AHEAD / streams;
        let from = self.address(n).wrapping_add(part * each);
        for at in (0..each).step_by(LINE) {
            for stream in 0..streams {
                prefetch(from.wrapping_add(stream * apart + at));
            }
        }
    }
}

/// Bytes of a weight that are asked for while an activation row is prepared for it: as many as memory brings meanwhile.
const AHEAD: usize = 4 << 10;

/// A weight (N, K) in memory.
#[derive(Clone, Copy)]
pub enum Matrix {
    /// In the [`lanes::arrangement`].
    F32(*const f32),
    /// In the [`lanes::arrangement`].
    Bf16(*const u16),
    /// In the [`tiles::arrangement`].
    Tiles(tiles::Strips),
}

impl Matrix {
    pub fn of(cx: &Context<'_>, weight: WeightId) -> Self {
        let data = cx.weight(weight);
        match data.elem() {
            Elem::U32 => Self::Tiles(tiles::Strips::new(data.ptr(), data.len())),
            Elem::Bf16 => Self::Bf16(data.ptr()),
            Elem::F32 => Self::F32(data.ptr()),
            other => unreachable!("no product has a weight of {other:?}"),
        }
    }

    /// Weight rows that lie together.
    fn together(self) -> usize {
        match self {
            Self::Tiles(_) => tiles::ROWS,
            _ => lanes::ROWS,
        }
    }

    /// Where those with row `n` begin, in elements, if rows have `depth`.
    fn at(self, n: usize, depth: usize) -> usize {
        match self {
            Self::Tiles(_) => tiles::at(n, depth),
            Self::Bf16(_) => lanes::at::<u16>(n, depth),
            Self::F32(_) => lanes::at::<f32>(n, depth),
        }
    }

    /// Elements within which [`Matrix::at`] has to stay, of a weight of `len`.
    fn room(self, len: usize) -> usize {
        match self {
            Self::Tiles(strips) => strips.stride,
            _ => len,
        }
    }
}

/// The form in which a product reads a weight (N, K).
pub fn arrangement(weight: WeightId, graph: &Graph, isa: Isa) -> (WeightId, Arrangement) {
    let Weight { shape, elem, .. } = graph.weight_at(weight);
    let tiles = isa.by_tiles() && *elem == Elem::Bf16;
    let (n, k) = (shape[0], shape[1]);
    (weight, if tiles { tiles::arrangement(n, k) } else { lanes::arrangement(*elem, n, k) })
}

/// Weight rows that a thread takes.
pub struct Piece {
    pub rows: Range<usize>,
    /// What the thread reads afterwards: it is asked for before the rows end. Any address will do.
    pub next: *const u8,
}

/// Computes the elements of a piece of the weight's rows for all activation rows.
///
/// # Safety
/// `weight` holds the piece's rows, `x` holds `rows`; `epilogue` may be given exactly these. A weight of tiles goes with
/// an instruction set that has them.
pub unsafe fn product<E: Epilogue>(isa: Isa, p: Product, x: Rows, piece: Piece, epilogue: &mut E) {
    let Product { first, depth, rows, .. } = p;
    // SAFETY: passed on.
    unsafe {
        match (p.weight, x) {
            (Matrix::F32(weight), Rows::Plain(x)) => {
                lanes::product(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            (Matrix::Bf16(weight), Rows::Plain(x)) => {
                lanes::product(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            (Matrix::Tiles(weight), Rows::Packed(x)) => {
                tiles::product(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            _ => unreachable!("rows are packed for tiles, and for these alone"),
        }
    }
}

/// A [`Product`] of a weight that `W` says where to find, and activations of type `X`.
#[derive(Clone, Copy)]
struct Operands<W, X = f32> {
    weight: W,
    first: usize,
    x: *const X,
    depth: usize,
    rows: usize,
}

/// Deals the weight's rows out to the team and computes all rows' elements.
///
/// # Safety
/// `x` is the run's rows of `depth` each, as [`rows`] or [`normalize`] gave it for the weight; `epilogue` writes what
/// its elements name, and nothing of what `x` is made of.
pub unsafe fn deal<E: Epilogue>(
    cx: &Context<'_>,
    weight: WeightId,
    x: Input,
    (width, depth): (usize, usize),
    epilogue: E,
) {
    // SAFETY: passed on.
    unsafe { deal_from(cx, (weight, 0), x, (width, depth), epilogue) }
}

/// As [`deal`], of the weight's rows from `first` on; the epilogue counts from there.
///
/// # Safety
/// As [`deal`].
pub unsafe fn deal_from<E: Epilogue>(
    cx: &Context<'_>,
    (weight, first): (WeightId, usize),
    mut x: Input,
    (width, depth): (usize, usize),
    mut epilogue: E,
) {
    let product = Product { weight: Matrix::of(cx, weight), first, depth, rows: cx.extent.rows };
    let stop = first + width;
    let end = product.weight.at(stop.next_multiple_of(product.weight.together()), depth);
    assert!(end <= product.weight.room(cx.weight(weight).len()), "rows {first} to {stop} outside the weight");
    cx.member.deal_streams(width, product.pieces(), |rows, next| {
        epilogue.expect(product.rows, rows.clone());
        let piece = Piece { rows, next: product.address(next) };
        let x = x.get(cx, |row| product.ask(piece.rows.start, row));
        // SAFETY: the weight has those rows; the rest is the caller's.
        unsafe { self::product(cx.isa, product, x, piece, &mut epilogue) }
    });
}

/// Rows (R, width) that an epilogue writes.
#[derive(Clone, Copy)]
pub struct Out {
    pub at: *mut f32,
    pub width: usize,
}

impl Out {
    /// Elements n..n + len of row r.
    ///
    /// # Safety
    /// They exist, are this member's, and no other reference to them is in use meanwhile.
    #[inline(always)]
    pub unsafe fn part<'a>(self, r: usize, n: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(r * self.width + n), len) }
    }
}

/// out[r, n] = map(sum)
pub struct Store<F> {
    pub out: Out,
    pub map: F,
}

impl<F: Fn(f32) -> f32> Epilogue for Store<F> {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        // SAFETY: these elements are inside `out` and this member's.
        let out = unsafe { self.out.part(r, n, sums.len()) };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (self.map)(*sum);
        }
    }
}

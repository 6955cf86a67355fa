//! y[r, n] = Σ_k weight[n, k] * x[r, k], the inner loop of every generation product.
//!
//! bf16 weights go by [`tiles`] where the processor has them; here is everything else. One order of summation per
//! output element, whatever the number of rows: sixteen partial sums, the j-th over k ≡ j mod 16 in ascending k with
//! fused multiply-adds, then one fixed tree. Tiles of several weight rows and several activation rows only decide which
//! elements are computed side by side.

mod rows;
mod tiles;

use std::ops::{Range, RangeInclusive};

pub use self::rows::{Rows, normalize, normalize_into, rows, scratch};
use super::Context;
use super::memory::Arrangement;
use super::simd::{Element, Isa, LANES, LINE, Simd, kernel, prefetch};
use crate::graph::{Elem, Graph, Weight, WeightId};

/// The most weight rows of a tile.
const TILE: usize = 4;

/// Weight rows whose sums are stored together, at most.
const GROUP: usize = 32;

/// Activation rows whose sums are stored together, at most.
const BLOCK: usize = 16;

/// Bytes of a group's weights where several blocks meet them: most second-level caches hold them beside a block.
const CACHED: usize = 256 << 10;

/// Weight elements that are asked for before they are needed, counted from a tile's last row.
const AHEAD: usize = 2048;

/// Takes finished sums.
pub trait Epilogue {
    /// `sums[i]` is y[r, n + i]. Of a whole weight n is even, so a rotation's pairs stay together.
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]);
}

/// Rows of a weight matrix and the activation rows that they meet.
#[derive(Clone, Copy)]
pub struct Product {
    pub weight: Matrix,
    /// The weight's row that counts as n = 0.
    pub first: usize,
    pub x: Rows,
    /// K
    pub depth: usize,
    /// R
    pub rows: usize,
}

impl Product {
    /// Weight rows that a member takes at a time, a multiple of the first, so a rotation's pairs stay together: a long
    /// stream while much is left, a short one at the end.
    pub fn pieces(&self) -> RangeInclusive<usize> {
        match self.weight {
            Matrix::Tiles(_) => tiles::ROWS..=128,
            _ => 16..=128,
        }
    }

    /// Where row `n` of the weight begins; it need not exist.
    pub fn address(&self, n: usize) -> *const u8 {
        let n = self.first + n;
        match self.weight {
            Matrix::F32(weight) => weight.wrapping_add(n * self.depth).cast(),
            Matrix::Bf16(weight) => weight.wrapping_add(n * self.depth).cast(),
            Matrix::Tiles(weight) => weight.wrapping_add(tiles::at(n, self.depth)).cast(),
        }
    }
}

/// A weight (N, K) in memory.
#[derive(Clone, Copy)]
pub enum Matrix {
    F32(*const f32),
    Bf16(*const u16),
    /// In the [`tiles::arrangement`].
    Tiles(*const u32),
}

impl Matrix {
    pub fn of(cx: &Context<'_>, weight: WeightId) -> Self {
        let data = cx.weight(weight);
        match data.elem() {
            Elem::U32 => Self::Tiles(data.ptr()),
            Elem::Bf16 => Self::Bf16(data.ptr()),
            Elem::F32 => Self::F32(data.ptr()),
            other => unreachable!("no product has a weight of {other:?}"),
        }
    }
}

/// The form in which a product reads a weight (N, K), if it is not the checkpoint's.
pub fn arrangement(weight: WeightId, graph: &Graph, isa: Isa) -> Option<(WeightId, Arrangement)> {
    let Weight { shape, elem, .. } = graph.weight_at(weight);
    let tiles = isa.by_tiles() && *elem == Elem::Bf16;
    let arrangement = if tiles { Some(tiles::arrangement(shape[0], shape[1])) } else { Arrangement::copy() };
    arrangement.map(|arrangement| (weight, arrangement))
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
pub unsafe fn product<E: Epilogue>(isa: Isa, p: Product, piece: Piece, epilogue: &mut E) {
    let Product { first, depth, rows, .. } = p;
    // SAFETY: passed on.
    unsafe {
        match (p.weight, p.x) {
            (Matrix::F32(weight), Rows::Plain(x)) => {
                plain(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            (Matrix::Bf16(weight), Rows::Plain(x)) => {
                plain(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            (Matrix::Tiles(weight), Rows::Packed(x)) => {
                tiles::product(isa, Operands { weight, first, x, depth, rows }, piece, epilogue)
            }
            _ => unreachable!("rows are packed for tiles, and for these alone"),
        }
    }
}

/// A [`Product`], its weight of type `T` and its activations of type `X`.
#[derive(Clone, Copy)]
struct Operands<T, X = f32> {
    weight: *const T,
    first: usize,
    x: *const X,
    depth: usize,
    rows: usize,
}

kernel!(fn plain[T: Element, E: Epilogue](p: Operands<T>, piece: Piece, epilogue: &mut E) = body);

/// Goes through the weight rows once: a few of them meet a block of activation rows while they are in the first cache, a
/// group of them all blocks while it is in the second. A group's sums are stored together, as an epilogue has work of its
/// own for every call.
///
/// With few activation rows memory is the limit. Weight rows side by side are as many independent sums, which keep the
/// latency of multiply-adds out of its way: measured on two Zen 4 cores, bf16, K = 768, two activation rows, four weight
/// rows at once pass at 83 GB/s where they lie in cache, one after the other at 53 GB/s; out of memory both at the
/// 28 GB/s at which it can be read. With eight activation rows arithmetic is the limit: 25 GB/s even in cache.
#[inline(always)]
unsafe fn body<S: Simd, T: Element, E: Epilogue>(p: Operands<T>, mut piece: Piece, epilogue: &mut E) {
    let mut sums = [[0f32; GROUP]; BLOCK];
    let cached = (CACHED / (p.depth * size_of::<T>())).clamp(2 * TILE, GROUP) / TILE * TILE;
    let group = if p.rows > BLOCK { cached } else { GROUP };
    while !piece.rows.is_empty() {
        let (start, count) = (piece.rows.start, piece.rows.len().min(group));
        for first in (0..p.rows).step_by(BLOCK) {
            let height = BLOCK.min(p.rows - first);
            // SAFETY: the piece has `count` rows, and rows first..first + height exist.
            unsafe { block::<S, T>(p, &piece, (count, first..first + height), &mut sums) };
            for (r, sums) in sums.iter_mut().enumerate().take(height) {
                epilogue.store(first + r, start, &mut sums[..count]);
            }
        }
        piece.rows.start += count;
    }
}

/// sums[r - rows.start, i] = y[r, piece.rows.start + i] of a piece's first `count` rows and activation rows r in `rows`.
///
/// Where a vector takes two of sixteen registers, the sums of two weight rows are what fits.
#[inline(always)]
unsafe fn block<S: Simd, T: Element>(
    p: Operands<T>,
    piece: &Piece,
    (count, rows): (usize, Range<usize>),
    sums: &mut [[f32; GROUP]; BLOCK],
) {
    let k = p.depth;
    let most = if S::REGISTERS >= 32 || p.rows == 1 { TILE } else { 2 };
    let mut n = 0;
    while n < count {
        let side = match count - n {
            left if left >= most => most,
            2.. => 2,
            _ => 1,
        };
        let weight = p.weight.wrapping_add((p.first + piece.rows.start + n) * k);
        let mut ahead = Ahead {
            weight,
            at: (side - 1) * k + AHEAD,
            len: (piece.rows.len() - n) * k,
            next: piece.next,
            // The first pass reads all of the tile; rarer requests would come later than what they ask for.
            every: passes(side, rows.len()).min(side),
            // Other activation rows meet the weights in the cache.
            wait: if rows.start == 0 { 0 } else { usize::MAX },
        };
        let mut r = rows.start;
        while r < rows.end {
            let x = p.x.wrapping_add(r * k);
            let to = sums[r - rows.start..].iter_mut().map(|sums| &mut sums[n..]);
            // SAFETY: those rows of both exist, and there are as many sums.
            r += unsafe {
                match (side, height(side, rows.end - r)) {
                    (TILE, 6) => tile::<S, T, TILE, 6>(weight, x, k, &mut ahead, to),
                    (TILE, 4) => tile::<S, T, TILE, 4>(weight, x, k, &mut ahead, to),
                    (TILE, 3) => tile::<S, T, TILE, 3>(weight, x, k, &mut ahead, to),
                    (TILE, 2) => tile::<S, T, TILE, 2>(weight, x, k, &mut ahead, to),
                    (TILE, _) => tile::<S, T, TILE, 1>(weight, x, k, &mut ahead, to),
                    (2, 2) => tile::<S, T, 2, 2>(weight, x, k, &mut ahead, to),
                    (2, _) => tile::<S, T, 2, 1>(weight, x, k, &mut ahead, to),
                    (_, _) => tile::<S, T, 1, 1>(weight, x, k, &mut ahead, to),
                }
            };
        }
        n += side;
    }
}

/// Activation rows that `side` weight rows meet next, of a block's `left`: as evenly as there are tiles for.
#[inline(always)]
fn height(side: usize, left: usize) -> usize {
    match (side, left) {
        (TILE, 6 | 9..) => 6,
        (TILE, 5) => 3,
        (TILE, 4..) => 4,
        (TILE, _) => left,
        (2, 2..) => 2,
        (_, _) => 1,
    }
}

/// How often `side` weight rows are gone through for a block of `rows` activation rows.
#[inline(always)]
fn passes(side: usize, mut rows: usize) -> usize {
    let mut passes = 0;
    while rows > 0 {
        rows -= height(side, rows);
        passes += 1;
    }
    passes
}

/// Asks memory for the weights behind a tile while it is computed, evenly over the passes of the first block: in bursts,
/// memory would have nothing to do in the passes after the first (f32 weights, eight activation rows, two Zen 4 cores: a step
/// of GPT-B took as long as memory and arithmetic one after the other, a tenth longer than now).
struct Ahead<T> {
    weight: *const T,
    /// What is asked for next, counted from `weight`.
    at: usize,
    /// Elements of the piece from `weight` on.
    len: usize,
    /// What is read after them.
    next: *const u8,
    /// Steps from one request to the next.
    every: usize,
    /// Steps until the next request.
    wait: usize,
}

impl<T> Ahead<T> {
    /// Once per step of `count` weight elements; a request is for as many.
    #[inline(always)]
    fn step(&mut self, count: usize) {
        if self.wait == 0 {
            // In their order in memory, though a tile reads its rows side by side: so early that the last row's come in time.
            let from = match self.at.checked_sub(self.len) {
                None => self.weight.wrapping_add(self.at).cast(),
                Some(behind) => self.next.wrapping_add(behind * size_of::<T>()),
            };
            for line in (0..count * size_of::<T>()).step_by(LINE) {
                prefetch(from.wrapping_add(line));
            }
            self.at += count;
            self.wait = self.every;
        }
        self.wait -= 1;
    }
}

/// `SIDE` weight rows times `HEIGHT` activation rows, their sums in registers and then in the first elements of each of
/// `to`; returns `HEIGHT`.
#[inline(always)]
unsafe fn tile<'a, S: Simd, T: Element, const SIDE: usize, const HEIGHT: usize>(
    weight: *const T,
    x: *const f32,
    k: usize,
    ahead: &mut Ahead<T>,
    to: impl Iterator<Item = &'a mut [f32]>,
) -> usize {
    // SAFETY: the caller vouches for SIDE rows of the weight and HEIGHT of x, each k long.
    unsafe {
        let mut sums = [[S::splat(0.0); SIDE]; HEIGHT];
        let mut at = 0;
        while at + 2 * LANES <= k {
            ahead.step(SIDE * 2 * LANES);
            step::<S, T, SIDE, HEIGHT>(&mut sums, weight.add(at), x.add(at), k);
            step::<S, T, SIDE, HEIGHT>(&mut sums, weight.add(at + LANES), x.add(at + LANES), k);
            at += 2 * LANES;
        }
        rest::<S, T, SIDE, HEIGHT>(&mut sums, weight.add(at), x.add(at), k, k - at);
        for (sums, to) in sums.into_iter().zip(to) {
            let mut all = [S::splat(0.0); TILE];
            all[..SIDE].copy_from_slice(&sums);
            to[..SIDE].copy_from_slice(&S::reduce_add_4(all)[..SIDE]);
        }
    }
    HEIGHT
}

/// Sixteen more of every sum's products; rows of both are `k` apart.
#[inline(always)]
unsafe fn step<S: Simd, T: Element, const SIDE: usize, const HEIGHT: usize>(
    sums: &mut [[S::V; SIDE]; HEIGHT],
    weight: *const T,
    x: *const f32,
    k: usize,
) {
    // SAFETY: the caller vouches for sixteen elements of each row.
    unsafe {
        let mut w = [S::splat(0.0); SIDE];
        for (i, w) in w.iter_mut().enumerate() {
            *w = T::load::<S>(weight.add(i * k));
        }
        for (h, sums) in sums.iter_mut().enumerate() {
            let x = S::load(x.add(h * k));
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = S::fma(w, x, *sum);
            }
        }
    }
}

/// The last `count` < 32 elements of every sum's products.
#[inline(always)]
unsafe fn rest<S: Simd, T: Element, const SIDE: usize, const HEIGHT: usize>(
    sums: &mut [[S::V; SIDE]; HEIGHT],
    mut weight: *const T,
    mut x: *const f32,
    k: usize,
    mut count: usize,
) {
    // SAFETY: the caller vouches for `count` elements of each row.
    unsafe {
        if count >= LANES {
            step::<S, T, SIDE, HEIGHT>(sums, weight, x, k);
            (weight, x, count) = (weight.add(LANES), x.add(LANES), count - LANES);
        }
        if count > 0 {
            let mut w = [S::splat(0.0); SIDE];
            for (i, w) in w.iter_mut().enumerate() {
                *w = T::load_partial::<S>(weight.add(i * k), count);
            }
            for (h, sums) in sums.iter_mut().enumerate() {
                let x = S::load_partial(x.add(h * k), count);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = S::fma(w, x, *sum);
                }
            }
        }
    }
}

/// Deals the weight's rows out to the team and computes all rows' elements.
///
/// # Safety
/// `x` holds the run's rows of `depth` each, as [`rows`] or [`normalize`] gave it for the weight; `epilogue` writes what
/// its elements name and nothing else.
pub unsafe fn deal<E: Epilogue>(
    cx: &Context<'_>,
    weight: WeightId,
    x: Rows,
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
    x: Rows,
    (width, depth): (usize, usize),
    mut epilogue: E,
) {
    let product = Product { weight: Matrix::of(cx, weight), first, x, depth, rows: cx.extent.rows };
    let (stop, len) = (first + width, cx.weight(weight).len());
    let end = match product.weight {
        Matrix::Tiles(_) => tiles::at(stop.next_multiple_of(tiles::ROWS), depth),
        _ => stop * depth,
    };
    assert!(end <= len, "rows {first} to {stop} outside the weight");
    cx.member.deal_streams(width, product.pieces(), |rows, next| {
        let piece = Piece { rows, next: product.address(next) };
        // SAFETY: the weight has those rows; the rest is the caller's.
        unsafe { self::product(cx.isa, product, piece, &mut epilogue) }
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

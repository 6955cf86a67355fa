//! The same by lanes: sixteen partial sums in a vector, several weight rows and several activation rows side by side.

use std::ops::Range;

use super::{Epilogue, Operands, Piece};
use crate::backend::cpu::simd::{Element, LANES, LINE, Simd, kernel, prefetch};

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

kernel!(
    /// As [`super::product`], of a weight and rows as they are.
    ///
    /// # Safety
    /// As there.
    pub fn product[T: Element, E: Epilogue](p: Operands<T>, piece: Piece, epilogue: &mut E) = body
);

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

/// Asks memory for the weights behind a tile while it is computed, evenly over the passes of the first block. In bursts,
/// memory would have nothing to do in the passes after the first: of f32 weights and eight activation rows, on two Zen 4
/// cores, a step of GPT-B took as long as memory and arithmetic one after the other, a tenth longer than now.
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
            // In their order in memory, though a tile reads its rows side by side: so early that the last row's come in
            // time.
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

//! y[r, n] = Σ_k weight[n, k] * x[r, k], the inner loop of every generation product.
//!
//! One order of summation per output element, whatever the number of rows: sixteen partial sums, the j-th
//! over k ≡ j mod 16 in ascending k with fused multiply-adds, then one fixed tree. Tiles of several weight
//! rows and several activation rows only decide which elements are computed side by side.

use std::ops::{Range, RangeInclusive};

use super::Context;
use super::simd::{Element, LANES, LINE, Simd, kernel, prefetch};
use crate::graph::{BufferId, Elem, WeightId};

/// The most weight rows of a tile. Pieces begin at multiples of it, so a rotation's pairs and a head's rows stay together.
pub const TILE: usize = 4;

/// Weight elements that are asked for before they are needed, counted from a tile's last row.
const AHEAD: usize = 2048;

/// Weight rows that a member takes at a time, a multiple of the first: a long stream while much is left, a short one at
/// the end.
pub const PIECES: RangeInclusive<usize> = 16..=128;

/// Takes the finished sums of a tile.
pub trait Epilogue {
    /// `sums[i]` is y[r, n + i] for the first `count`; the others mean nothing.
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize);
}

/// A weight matrix and the rows it meets.
#[derive(Clone, Copy)]
pub struct Product<T> {
    /// (N, K)
    pub weight: *const T,
    /// (R, K)
    pub x: *const f32,
    /// K
    pub depth: usize,
    /// R
    pub rows: usize,
}

/// Weight rows that a thread takes.
pub struct Piece<T> {
    pub rows: Range<usize>,
    /// What the thread reads afterwards: it is asked for before the rows end. Any address will do.
    pub next: *const T,
}

/// Computes the elements of a piece of the weight's rows for all activation rows.
///
/// # Safety
/// `weight` holds the piece's rows, `x` holds `rows`; `epilogue` may be given exactly these.
pub unsafe fn product<T: Element, E: Epilogue>(
    isa: super::simd::Isa,
    p: Product<T>,
    piece: Piece<T>,
    epilogue: &mut E,
) {
    // SAFETY: passed on.
    unsafe { dispatch(isa, p, piece, epilogue) }
}

kernel!(fn dispatch[T: Element, E: Epilogue](p: Product<T>, piece: Piece<T>, epilogue: &mut E) = body);

/// Goes through the weight rows once: a few of them meet all activation rows while they are in cache.
///
/// With few activation rows memory is the limit. Weight rows side by side are as many independent sums, which keep the
/// latency of multiply-adds out of its way: measured on two Zen 4 cores, bf16, K = 768, two activation rows, four weight
/// rows at once pass at 83 GB/s where they lie in cache, one after the other at 53 GB/s; out of memory both at the
/// 28 GB/s at which it can be read. Where a vector takes two of sixteen
/// registers, the sums of two weight rows are what fits.
#[inline(always)]
unsafe fn body<S: Simd, T: Element, E: Epilogue>(p: Product<T>, mut piece: Piece<T>, epilogue: &mut E) {
    let most = if S::REGISTERS >= 32 || p.rows == 1 { TILE } else { 2 };
    while !piece.rows.is_empty() {
        let count = match piece.rows.len() {
            len if len >= most => most,
            2.. => 2,
            _ => 1,
        };
        let mut r = 0;
        while r < p.rows {
            // SAFETY: the piece has `count` rows, and rows r..r + height exist.
            r += unsafe {
                match (count, p.rows - r) {
                    (TILE, 6..) => tile::<S, T, E, TILE, 6>(p, &piece, r, epilogue),
                    (TILE, 4..) => tile::<S, T, E, TILE, 4>(p, &piece, r, epilogue),
                    (TILE, 3) => tile::<S, T, E, TILE, 3>(p, &piece, r, epilogue),
                    (TILE, 2) => tile::<S, T, E, TILE, 2>(p, &piece, r, epilogue),
                    (TILE, _) => tile::<S, T, E, TILE, 1>(p, &piece, r, epilogue),
                    (2, 2..) => tile::<S, T, E, 2, 2>(p, &piece, r, epilogue),
                    (2, _) => tile::<S, T, E, 2, 1>(p, &piece, r, epilogue),
                    (_, _) => tile::<S, T, E, 1, 1>(p, &piece, r, epilogue),
                }
            };
        }
        piece.rows.start += count;
    }
}

/// A piece's first `COUNT` rows times `HEIGHT` activation rows, their sums in registers; returns `HEIGHT`.
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, E: Epilogue, const COUNT: usize, const HEIGHT: usize>(
    p: Product<T>,
    piece: &Piece<T>,
    r: usize,
    epilogue: &mut E,
) -> usize {
    let k = p.depth;
    let (n, end) = (piece.rows.start, piece.rows.len() * k);
    // SAFETY: the caller vouches for COUNT rows of the weight from n on and rows r..r + HEIGHT of x, each k long.
    unsafe {
        let weight = p.weight.add(n * k);
        let x = p.x.add(r * k);
        let mut sums = [[S::splat(0.0); COUNT]; HEIGHT];
        let mut at = 0;
        while at + 2 * LANES <= k {
            if r == 0 {
                // In their order in memory, though the tile reads its rows side by side: so early that the last row's come
                // in time.
                for line in (0..COUNT * 2 * LANES).step_by(LINE / size_of::<T>()) {
                    let ahead = (COUNT - 1) * k + AHEAD + COUNT * at + line;
                    prefetch(if ahead < end {
                        weight.wrapping_add(ahead)
                    } else {
                        piece.next.wrapping_add(ahead - end)
                    });
                }
            }
            step::<S, T, COUNT, HEIGHT>(&mut sums, weight.add(at), x.add(at), k);
            step::<S, T, COUNT, HEIGHT>(&mut sums, weight.add(at + LANES), x.add(at + LANES), k);
            at += 2 * LANES;
        }
        rest::<S, T, COUNT, HEIGHT>(&mut sums, weight.add(at), x.add(at), k, k - at);
        for (h, sums) in sums.into_iter().enumerate() {
            let mut all = [S::splat(0.0); TILE];
            all[..COUNT].copy_from_slice(&sums);
            let out = S::reduce_add_4(all);
            epilogue.store(r + h, n, out, COUNT);
        }
    }
    HEIGHT
}

/// Sixteen more of every sum's products; rows of both are `k` apart.
#[inline(always)]
unsafe fn step<S: Simd, T: Element, const COUNT: usize, const HEIGHT: usize>(
    sums: &mut [[S::V; COUNT]; HEIGHT],
    weight: *const T,
    x: *const f32,
    k: usize,
) {
    // SAFETY: the caller vouches for sixteen elements of each row.
    unsafe {
        let mut w = [S::splat(0.0); COUNT];
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
unsafe fn rest<S: Simd, T: Element, const COUNT: usize, const HEIGHT: usize>(
    sums: &mut [[S::V; COUNT]; HEIGHT],
    mut weight: *const T,
    mut x: *const f32,
    k: usize,
    mut count: usize,
) {
    // SAFETY: the caller vouches for `count` elements of each row.
    unsafe {
        if count >= LANES {
            step::<S, T, COUNT, HEIGHT>(sums, weight, x, k);
            (weight, x, count) = (weight.add(LANES), x.add(LANES), count - LANES);
        }
        if count > 0 {
            let mut w = [S::splat(0.0); COUNT];
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
/// `x` holds the run's rows of `depth` each; `epilogue` writes what its elements name and nothing else.
pub unsafe fn deal<E: Epilogue>(
    cx: &Context<'_>,
    weight: WeightId,
    x: *const f32,
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
    x: *const f32,
    (width, depth): (usize, usize),
    mut epilogue: E,
) {
    let data = cx.weight(weight);
    assert!((first + width) * depth <= data.len(), "rows {first} to {} outside the weight", first + width);
    let (rows, skip) = (cx.extent.rows, first * depth);
    cx.member.deal_streams(width, PIECES, |range, next| {
        // SAFETY: the weight has those rows; the rest is the caller's.
        unsafe {
            match data.elem() {
                Elem::Bf16 => {
                    let weight = data.ptr::<u16>().add(skip);
                    let piece = Piece { rows: range, next: weight.add(next * depth) };
                    product(cx.isa, Product { weight, x, depth, rows }, piece, &mut epilogue);
                }
                _ => {
                    let weight = data.ptr::<f32>().add(skip);
                    let piece = Piece { rows: range, next: weight.add(next * depth) };
                    product(cx.isa, Product { weight, x, depth, rows }, piece, &mut epilogue);
                }
            }
        }
    });
}

/// out[r, n] = map(sum)
pub struct Store<F> {
    /// (R, width)
    pub out: *mut f32,
    pub width: usize,
    pub map: F,
}

impl<F: Fn(f32) -> f32> Epilogue for Store<F> {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: element (r, n + i) is inside `out` and this member's.
            unsafe { *self.out.add(r * self.width + n + i) = (self.map)(sum) }
        }
    }
}

/// RMSNorm of every row of `x` into the shared scratch, (R, width).
///
/// The weight is applied after the division, as LlamaGen does.
pub fn normalize(cx: &Context<'_>, x: BufferId, norm: WeightId, width: usize, eps: f32) -> *const f32 {
    let out = cx.shared_scratch();
    normalize_into(cx, out, x, norm, width, eps);
    out
}

/// RMSNorm of every row of `x` into `out`, (R, width).
pub fn normalize_into(cx: &Context<'_>, out: *mut f32, x: BufferId, norm: WeightId, width: usize, eps: f32) {
    let (x, weight) = (cx.buffer::<f32>(x), cx.weight(norm).ptr::<f32>());
    cx.member.deal(cx.extent.rows, 1, |rows| {
        for r in rows {
            // SAFETY: row r of x and of `out` is this member's; both are `width` wide.
            unsafe { rms_norm(cx.isa, out.add(r * width), x.add(r * width), weight, width, eps) }
        }
    });
}

kernel!(fn rms_norm(out: *mut f32, x: *const f32, weight: *const f32, width: usize, eps: f32) = rms_norm_body);

#[inline(always)]
unsafe fn rms_norm_body<S: Simd>(out: *mut f32, x: *const f32, weight: *const f32, width: usize, eps: f32) {
    let whole = width / LANES * LANES;
    let rest = width - whole;
    // SAFETY: all three hold `width` elements.
    unsafe {
        let mut squares = S::splat(0.0);
        for at in (0..whole).step_by(LANES) {
            let x = S::load(x.add(at));
            squares = S::fma(x, x, squares);
        }
        if rest > 0 {
            let x = S::load_partial(x.add(whole), rest);
            squares = S::fma(x, x, squares);
        }
        let rstd = S::splat(1.0 / (S::reduce_add(squares) / width as f32 + eps).sqrt());
        for at in (0..whole).step_by(LANES) {
            S::store(out.add(at), S::mul(S::mul(S::load(x.add(at)), rstd), S::load(weight.add(at))));
        }
        if rest > 0 {
            let y = S::mul(S::load_partial(x.add(whole), rest), rstd);
            S::store_partial(out.add(whole), S::mul(y, S::load_partial(weight.add(whole), rest)), rest);
        }
    }
}

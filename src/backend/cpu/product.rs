//! y[r, n] = Σ_k weight[n, k] * x[r, k], the inner loop of every generation product.
//!
//! One order of summation per output element, whatever the number of rows: sixteen partial sums, the j-th
//! over k ≡ j mod 16 in ascending k with fused multiply-adds, then one fixed tree. Tiles of several weight
//! rows and several activation rows only decide which elements are computed side by side.

use std::ops::Range;

use super::Context;
use super::simd::{Element, LANES, Simd, kernel};
use crate::graph::{BufferId, Elem, WeightId};

/// Weight rows per tile. Even, so that a rotation's pairs stay together.
pub const TILE: usize = 4;

/// Weight rows that a member takes at a time: long enough to stream, short enough to balance.
pub const CHUNK: usize = 16;

/// Takes the finished sums of a tile.
pub trait Epilogue {
    /// `sums[i]` is y[r, n + i]; only those below the end of the weight are valid, `count` of them.
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

/// Computes the elements of weight rows `range` for all activation rows.
///
/// # Safety
/// `weight` holds `range.end` rows, `x` holds `rows`; `epilogue` may be given exactly these.
pub unsafe fn product<T: Element, E: Epilogue>(
    isa: super::simd::Isa,
    p: Product<T>,
    range: Range<usize>,
    epilogue: &mut E,
) {
    // SAFETY: passed on.
    unsafe { dispatch(isa, p, range, epilogue) }
}

kernel!(fn dispatch[T: Element, E: Epilogue](p: Product<T>, range: Range<usize>, epilogue: &mut E) = body);

/// Goes through the weight rows once; each tile of them meets all activation rows while it is in cache.
#[inline(always)]
unsafe fn body<S: Simd, T: Element, E: Epilogue>(p: Product<T>, range: Range<usize>, epilogue: &mut E) {
    let mut n = range.start;
    while n < range.end {
        let count = TILE.min(range.end - n);
        let mut r = 0;
        while r < p.rows {
            // SAFETY: rows n..n + count and r..r + height exist.
            r += unsafe {
                match (count, p.rows - r) {
                    (TILE, 6..) => tile::<S, T, E, TILE, 6>(p, n, r, epilogue),
                    (TILE, 4..) => tile::<S, T, E, TILE, 4>(p, n, r, epilogue),
                    (TILE, 2..) => tile::<S, T, E, TILE, 2>(p, n, r, epilogue),
                    (TILE, _) => tile::<S, T, E, TILE, 1>(p, n, r, epilogue),
                    (3, _) => tile::<S, T, E, 3, 1>(p, n, r, epilogue),
                    (2, _) => tile::<S, T, E, 2, 1>(p, n, r, epilogue),
                    (_, _) => tile::<S, T, E, 1, 1>(p, n, r, epilogue),
                }
            };
        }
        n += count;
    }
}

/// `COUNT` weight rows times `HEIGHT` activation rows, their sums in registers; returns `HEIGHT`.
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, E: Epilogue, const COUNT: usize, const HEIGHT: usize>(
    p: Product<T>,
    n: usize,
    r: usize,
    epilogue: &mut E,
) -> usize {
    let k = p.depth;
    // SAFETY: the caller vouches for rows n..n + COUNT of the weight and r..r + HEIGHT of x, each k long.
    unsafe {
        let weight = p.weight.add(n * k);
        let x = p.x.add(r * k);
        let mut sums = [[S::splat(0.0); COUNT]; HEIGHT];
        let mut at = 0;
        while at + LANES <= k {
            let mut w = [S::splat(0.0); COUNT];
            for (i, w) in w.iter_mut().enumerate() {
                *w = T::load::<S>(weight.add(i * k + at));
            }
            for (h, sums) in sums.iter_mut().enumerate() {
                let x = S::load(x.add(h * k + at));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = S::fma(w, x, *sum);
                }
            }
            at += LANES;
        }
        if at < k {
            let mut w = [S::splat(0.0); COUNT];
            for (i, w) in w.iter_mut().enumerate() {
                *w = T::load_partial::<S>(weight.add(i * k + at), k - at);
            }
            for (h, sums) in sums.iter_mut().enumerate() {
                let x = S::load_partial(x.add(h * k + at), k - at);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = S::fma(w, x, *sum);
                }
            }
        }
        for (h, sums) in sums.into_iter().enumerate() {
            let mut out = [0.0; TILE];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = S::reduce_add(sum);
            }
            epilogue.store(r + h, n, out, COUNT);
        }
    }
    HEIGHT
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
    mut epilogue: E,
) {
    let data = cx.weight(weight);
    let rows = cx.extent.rows;
    cx.member.deal(width, CHUNK, |range| {
        // SAFETY: the weight's shape is (width, depth) by the graph; the rest is the caller's.
        unsafe {
            match data.elem() {
                Elem::Bf16 => {
                    product(cx.isa, Product::<u16> { weight: data.ptr(), x, depth, rows }, range, &mut epilogue);
                }
                _ => product(cx.isa, Product::<f32> { weight: data.ptr(), x, depth, rows }, range, &mut epilogue),
            }
        }
    });
}

/// RMSNorm of every row of `x` into the shared scratch, (R, width).
///
/// The weight is applied after the division, as LlamaGen does.
pub fn normalize(cx: &Context<'_>, x: BufferId, norm: WeightId, width: usize, eps: f32) -> *const f32 {
    let out = cx.shared_scratch();
    let (x, weight) = (cx.buffer::<f32>(x), cx.weight(norm).ptr::<f32>());
    cx.member.deal(cx.extent.rows, 1, |rows| {
        for r in rows {
            // SAFETY: row r of x and of the scratch is this member's; both are `width` wide.
            unsafe { rms_norm(cx.isa, out.add(r * width), x.add(r * width), weight, width, eps) }
        }
    });
    out
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

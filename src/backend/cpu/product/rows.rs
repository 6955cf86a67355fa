//! Activation rows as products read them, normalized or as they are.

use super::{Matrix, tiles};
use crate::backend::cpu::simd::{LANES, Simd, kernel};
use crate::backend::cpu::{Context, Scratch};
use crate::graph::{BufferId, Graph, WeightId};

/// Activation rows in memory.
#[derive(Clone, Copy)]
pub enum Rows {
    /// (R, K)
    Plain(*const f32),
    /// As [`tiles::pack`] leaves them, for a weight of tiles.
    Packed(*const u32),
}

/// Shared scratch of the rows of a product of `depth`: normalized, and packed behind that.
pub fn scratch(depth: usize, graph: &Graph) -> Scratch {
    let rows = graph.max().rows;
    Scratch { shared: packed_at(rows, depth) + rows * tiles::words(depth), own: 0 }
}

/// Where in the shared scratch packed rows begin: at a cache line.
fn packed_at(rows: usize, depth: usize) -> usize {
    (rows * depth).next_multiple_of(LANES)
}

/// Where the run's rows are packed, if the weight that they meet is of tiles.
fn packed(cx: &Context<'_>, weight: WeightId, depth: usize) -> Option<*mut u32> {
    let tiles = matches!(Matrix::of(cx, weight), Matrix::Tiles(_));
    tiles.then(|| cx.shared_scratch().wrapping_add(packed_at(cx.extent.rows, depth)).cast())
}

/// The rows of `x` (R, depth), for products with a weight.
pub fn rows(cx: &Context<'_>, x: BufferId, weight: WeightId, depth: usize) -> Rows {
    let (x, count) = (cx.buffer::<f32>(x).cast_const(), cx.extent.rows);
    let Some(packed) = packed(cx, weight, depth) else { return Rows::Plain(x) };
    cx.member.deal(count, 1, |rows| {
        for r in rows {
            // SAFETY: x holds row r, and its part of the scratch is this member's.
            unsafe { tiles::pack(cx.isa, packed, x.add(r * depth), r, count, depth) }
        }
    });
    Rows::Packed(packed)
}

/// RMSNorm of the rows of `x` (R, width), for products with a weight.
///
/// The norm's weight is applied after the division, as LlamaGen does.
pub fn normalize(cx: &Context<'_>, x: BufferId, norm: WeightId, weight: WeightId, width: usize, eps: f32) -> Rows {
    let (out, packed, count) = (cx.shared_scratch(), packed(cx, weight, width), cx.extent.rows);
    normalize_each(cx, out, x, norm, (width, eps), |r| {
        if let Some(packed) = packed {
            // SAFETY: this member wrote row r of `out` just now; as in `rows`.
            unsafe { tiles::pack(cx.isa, packed, out.add(r * width), r, count, width) }
        }
    });
    packed.map_or(Rows::Plain(out), |packed| Rows::Packed(packed))
}

/// RMSNorm of every row of `x` into `out`, (R, width).
pub fn normalize_into(cx: &Context<'_>, out: *mut f32, x: BufferId, norm: WeightId, width: usize, eps: f32) {
    normalize_each(cx, out, x, norm, (width, eps), |_| {});
}

/// The same, and `then` for every row.
fn normalize_each(
    cx: &Context<'_>,
    out: *mut f32,
    x: BufferId,
    norm: WeightId,
    (width, eps): (usize, f32),
    then: impl Fn(usize),
) {
    let (x, weight) = (cx.buffer::<f32>(x), cx.weight(norm).ptr::<f32>());
    cx.member.deal(cx.extent.rows, 1, |rows| {
        for r in rows {
            // SAFETY: row r of x and of `out` is this member's; both are `width` wide.
            unsafe { rms_norm(cx.isa, out.add(r * width), x.add(r * width), weight, width, eps) }
            then(r);
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

//! Matches `graph::ops::attention`.
//!
//! A row's scores are computed for keys 0..=position in order, so what a row gives depends on its own
//! query and its slot's cache alone.

use bytemuck::Pod;

use super::simd::{Element, LANES, LINE, Simd, kernel, prefetch};
use super::{Context, Scratch};
use crate::graph::{Elem, NO_SLOT, Row, ops};
use crate::math;

pub(super) fn scratch(op: &ops::Attention) -> Scratch {
    Scratch { shared: 0, own: op.cache.positions.next_multiple_of(LANES) }
}

pub(super) fn run(op: &ops::Attention, cx: &Context<'_>) {
    match op.cache.elem {
        Elem::Bf16 => heads::<u16>(op, cx),
        _ => heads::<f32>(op, cx),
    }
}

/// All heads of all rows, of a cache that holds `T`.
fn heads<T: Element + Pod>(op: &ops::Attention, cx: &Context<'_>) {
    let heads = op.cache.n_head;
    let (dim, head_dim) = (op.cache.dim(), op.cache.head_dim);
    let (k, v) = (cx.buffer::<T>(op.k_cache).cast_const(), cx.buffer::<T>(op.v_cache).cast_const());
    let units = cx.extent.rows * heads;
    let row_of = |unit: usize| {
        // SAFETY: the row is one of the run's.
        let row = unsafe { *cx.buffer::<Row>(op.rows).add(unit / heads) };
        (row.slot != NO_SLOT).then_some(row)
    };
    let cached = |row: Row, unit: usize| op.cache.at(op.layer, row.slot as usize, unit % heads, 0);
    cx.member.deal_streams(units, 1..=1, |range, next| {
        let unit = range.start;
        let Some(row) = row_of(unit) else { return };
        op.cache.check(&row);
        let (at, channels) = (cached(row, unit), unit / heads * dim + unit % heads * head_dim);
        let next_row = if next < units { row_of(next) } else { None };
        // SAFETY: the row is checked; its head's part of `out` is this member's.
        unsafe {
            let one = Head {
                out: cx.buffer::<f32>(op.out).add(channels),
                q: cx.buffer::<f32>(op.q).add(channels),
                scores: cx.own_scratch(),
                keys: row.position as usize + 1,
                head_dim,
                scale: op.scale(),
                prefix: *cx.buffer::<f32>(op.prefix_log_n).add(row.slot as usize),
            };
            attend(cx.isa, one, k.add(at), v.add(at), next_row.map(|row| k.wrapping_add(cached(row, next))));
        }
    });
}

/// One head of one row.
#[derive(Clone, Copy)]
struct Head {
    /// (D)
    out: *mut f32,
    /// (D)
    q: *const f32,
    /// room for `keys`, rounded up to whole vectors
    scores: *mut f32,
    keys: usize,
    head_dim: usize,
    scale: f32,
    /// added to the score of key 0
    prefix: f32,
}

kernel!(
    /// One head, of keys `k` and values `v`, read as one stream from this head's keys to the `next` head's.
    fn attend[T: Element](head: Head, k: *const T, v: *const T, next: Option<*const T>) = attend_body
);

#[inline(always)]
unsafe fn attend_body<S: Simd, T: Element>(head: Head, k: *const T, v: *const T, next: Option<*const T>) {
    let Head { out, q, scores, keys, head_dim, scale, prefix } = head;
    let bytes = keys * head_dim * size_of::<T>();
    let stream = Stream { at: k.cast(), bytes, next: Some(v.cast()) };
    // SAFETY: k and v hold `keys` rows of head_dim, q and out one, scores room for all keys.
    unsafe {
        let mut j = 0;
        while j + 4 <= keys {
            stream.ask::<S>(j, 4, head_dim * size_of::<T>());
            let sums = products::<S, T, 4>(q, k.add(j * head_dim), head_dim);
            for (i, sum) in S::reduce_add_4(sums).into_iter().enumerate() {
                *scores.add(j + i) = sum * scale;
            }
            j += 4;
        }
        for j in j..keys {
            stream.ask::<S>(j, 1, head_dim * size_of::<T>());
            let [sum] = products::<S, T, 1>(q, k.add(j * head_dim), head_dim);
            *scores.add(j) = S::reduce_add(sum) * scale;
        }
        *scores += prefix;
        let stream = Stream { at: v.cast(), bytes, next: next.map(|next| next.cast()) };
        finish::<S, T>(out, scores, keys, v, (head_dim, head_dim), Some(stream));
    }
}

/// Rows that are read one after the other, and what is read after them.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    at: *const u8,
    bytes: usize,
    next: Option<*const u8>,
}

impl Stream {
    /// Asks memory for what is read [`Simd::AHEAD`] bytes, or a short stream's length, behind `count` rows of `row`
    /// bytes from row `j` on.
    #[inline(always)]
    fn ask<S: Simd>(&self, j: usize, count: usize, row: usize) {
        let ahead = j * row + S::AHEAD.min(self.bytes);
        let at = match ahead.checked_sub(self.bytes) {
            None => Some(self.at.wrapping_add(ahead)),
            Some(behind) => self.next.map(|next| next.wrapping_add(behind)),
        };
        if let Some(at) = at {
            for line in (0..count * row).step_by(LINE) {
                prefetch(at.wrapping_add(line));
            }
        }
    }
}

/// out[c] = Σ_j softmax_j(scores) * v[j, c] of one head, where rows of `v` are `stride` elements apart; the first
/// vectors' channels are read as a `stream`.
///
/// # Safety
/// `v` holds `keys` such rows, `out` head_dim elements, `scores` room for all keys, rounded up to whole vectors.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, T: Element>(
    out: *mut f32,
    scores: *mut f32,
    keys: usize,
    v: *const T,
    (head_dim, stride): (usize, usize),
    mut stream: Option<Stream>,
) {
    // SAFETY: the caller's.
    unsafe {
        let scores = std::slice::from_raw_parts_mut(scores, keys.next_multiple_of(LANES));
        // What fills the last vector weighs nothing.
        scores[keys..].fill(f32::NEG_INFINITY);
        let mut max = S::load(scores.as_ptr());
        for at in (LANES..scores.len()).step_by(LANES) {
            max = S::max(max, S::load(scores.as_ptr().add(at)));
        }
        let mut lanes = [0.0; LANES];
        S::store(lanes.as_mut_ptr(), max);
        let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        for score in scores.iter_mut() {
            *score = math::exp(*score - max);
        }
        let mut sums = S::splat(0.0);
        for at in (0..keys).step_by(LANES) {
            sums = S::add(sums, S::load(scores.as_ptr().add(at)));
        }
        let share = S::splat(1.0 / S::reduce_add(sums));
        // Four vectors of channels at a time keep the multiply-adds of consecutive keys independent.
        let mut c = 0;
        while c + 4 * LANES <= head_dim {
            mix::<S, T, 4>(out.add(c), v.add(c), &scores[..keys], stride, share, stream.take());
            c += 4 * LANES;
        }
        while c + LANES <= head_dim {
            mix::<S, T, 1>(out.add(c), v.add(c), &scores[..keys], stride, share, stream.take());
            c += LANES;
        }
        if c < head_dim {
            let rest = head_dim - c;
            let mut sum = S::splat(0.0);
            for (j, weight) in scores[..keys].iter().enumerate() {
                sum = S::fma(S::splat(*weight), T::load_partial::<S>(v.add(j * stride + c), rest), sum);
            }
            S::store_partial(out.add(c), S::mul(sum, share), rest);
        }
    }
}

/// out[c] = share * Σ_j weight[j] * v[j, c] for `VECTORS` vectors of channels.
#[inline(always)]
unsafe fn mix<S: Simd, T: Element, const VECTORS: usize>(
    out: *mut f32,
    v: *const T,
    weights: &[f32],
    stride: usize,
    share: S::V,
    stream: Option<Stream>,
) {
    // SAFETY: as `finish`.
    unsafe {
        let mut sums = [S::splat(0.0); VECTORS];
        for (j, weight) in weights.iter().enumerate() {
            if let Some(stream) = stream {
                stream.ask::<S>(j, 1, stride * size_of::<T>());
            }
            let weight = S::splat(*weight);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(weight, T::load::<S>(v.add(j * stride + i * LANES)), *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            S::store(out.add(i * LANES), S::mul(sum, share));
        }
    }
}

/// The sixteen partial sums of Σ_c q[c] * k[c] for each of `KEYS` rows of `head_dim` elements: lane i takes every c
/// that is i modulo 16, in ascending order.
///
/// # Safety
/// q holds `head_dim` elements, k as many for each key.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, T: Element, const KEYS: usize>(
    q: *const f32,
    k: *const T,
    head_dim: usize,
) -> [S::V; KEYS] {
    let whole = head_dim / LANES * LANES;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [S::splat(0.0); KEYS];
        for at in (0..whole).step_by(LANES) {
            let q = S::load(q.add(at));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(q, T::load::<S>(k.add(i * head_dim + at)), *sum);
            }
        }
        if whole < head_dim {
            let rest = head_dim - whole;
            let q = S::load_partial(q.add(whole), rest);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(q, T::load_partial::<S>(k.add(i * head_dim + whole), rest), *sum);
            }
        }
        sums
    }
}

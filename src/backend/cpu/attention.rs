//! Matches `graph::ops::attention`.
//!
//! A row's scores are computed for keys 0..=position in order, so what a row gives depends on its own
//! query and its slot's cache alone.

use bytemuck::Pod;

use super::simd::{Element, LANES, LINE, Simd, kernel, prefetch};
use super::{Context, Scratch};
use crate::graph::{Elem, NO_SLOT, Row, ops};
use crate::math;

/// Keys that are asked for ahead.
const AHEAD: usize = 32;

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
    // A unit whose keys were asked for while the one before was at work, and how many of them.
    let mut asked = (units, 0);
    cx.member.deal_streams(units, 1..=1, |range, next| {
        let unit = range.start;
        let Some(row) = row_of(unit) else { return };
        op.cache.check(&row);
        let (at, channels) = (cached(row, unit), unit / heads * dim + unit % heads * head_dim);
        let keys = row.position as usize + 1;
        let next_row = if next < units { row_of(next) } else { None };
        // SAFETY: the row is checked; its head's part of `out` is this member's.
        unsafe {
            let one = Head {
                out: cx.buffer::<f32>(op.out).add(channels),
                q: cx.buffer::<f32>(op.q).add(channels),
                scores: cx.own_scratch(),
                keys,
                asked: if asked.0 == unit { asked.1 } else { 0 },
                head_dim,
                scale: op.scale(),
                prefix: *cx.buffer::<f32>(op.prefix_log_n).add(row.slot as usize),
            };
            attend(cx.isa, one, k.add(at), v.add(at), next_row.map(|row| k.wrapping_add(cached(row, next))));
        }
        asked = (next, keys);
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
    /// keys that memory has been asked for
    asked: usize,
    head_dim: usize,
    scale: f32,
    /// added to the score of key 0
    prefix: f32,
}

kernel!(
    /// One head, of keys `k` and values `v`. Memory brings the values while keys are read, and the `next` head's keys
    /// while values are.
    fn attend[T: Element](head: Head, k: *const T, v: *const T, next: Option<*const T>) = attend_body
);

#[inline(always)]
unsafe fn attend_body<S: Simd, T: Element>(head: Head, k: *const T, v: *const T, next: Option<*const T>) {
    let Head { out, q, scores, keys, asked, head_dim, scale, prefix } = head;
    // SAFETY: k and v hold `keys` rows of head_dim, q and out one, scores room for all keys.
    unsafe {
        let mut j = 0;
        while j + 4 <= keys {
            let ask = (asked..keys).contains(&(j + AHEAD));
            for c in (0..4 * head_dim).step_by(LINE / size_of::<T>()) {
                if ask {
                    prefetch(k.wrapping_add((j + AHEAD) * head_dim + c));
                }
                prefetch(v.add(j * head_dim + c));
            }
            let mut sums = [S::splat(0.0); 4];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = products::<S, T>(q, k.add((j + i) * head_dim), head_dim);
            }
            for (i, sum) in S::reduce_add_4(sums).into_iter().enumerate() {
                *scores.add(j + i) = sum * scale;
            }
            j += 4;
        }
        for j in j..keys {
            *scores.add(j) = S::reduce_add(products::<S, T>(q, k.add(j * head_dim), head_dim)) * scale;
        }
        *scores += prefix;
        finish::<S, T>(out, scores, keys, v, (head_dim, head_dim), next);
    }
}

/// out[c] = Σ_j softmax_j(scores) * v[j, c] of one head, where rows of `v` are `stride` elements apart. Meanwhile memory
/// is asked for as many rows of `next`.
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
    mut next: Option<*const T>,
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
            mix::<S, T, 4>(out.add(c), v.add(c), &scores[..keys], stride, share, next.take());
            c += 4 * LANES;
        }
        while c + LANES <= head_dim {
            mix::<S, T, 1>(out.add(c), v.add(c), &scores[..keys], stride, share, next.take());
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

/// out[c] = share * Σ_j weight[j] * v[j, c] for `VECTORS` vectors of channels; memory is asked for row j of `next`, too.
#[inline(always)]
unsafe fn mix<S: Simd, T: Element, const VECTORS: usize>(
    out: *mut f32,
    v: *const T,
    weights: &[f32],
    stride: usize,
    share: S::V,
    next: Option<*const T>,
) {
    // SAFETY: as `finish`.
    unsafe {
        let mut sums = [S::splat(0.0); VECTORS];
        for (j, weight) in weights.iter().enumerate() {
            if let Some(next) = next {
                for c in (0..stride).step_by(LINE / size_of::<T>()) {
                    prefetch(next.wrapping_add(j * stride + c));
                }
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

/// The sixteen partial sums of Σ_c q[c] * k[c], in the order of `product`.
///
/// # Safety
/// Both hold `head_dim` elements.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, T: Element>(q: *const f32, k: *const T, head_dim: usize) -> S::V {
    let whole = head_dim / LANES * LANES;
    // SAFETY: both hold head_dim elements.
    unsafe {
        let mut sum = S::splat(0.0);
        for at in (0..whole).step_by(LANES) {
            sum = S::fma(S::load(q.add(at)), T::load::<S>(k.add(at)), sum);
        }
        if whole < head_dim {
            let rest = head_dim - whole;
            sum = S::fma(S::load_partial(q.add(whole), rest), T::load_partial::<S>(k.add(whole), rest), sum);
        }
        sum
    }
}

//! Matches `graph::ops::attention`.
//!
//! A row's scores are computed for keys 0..=position in order, so what a row gives depends on its own
//! query and its slot's cache alone.

mod ahead;

use bytemuck::Pod;

use self::ahead::{Ahead, Cached};
use super::simd::{Element, LANES, Simd, kernel};
use super::{Context, Scratch};
use crate::graph::{Elem, NO_SLOT, Row, ops};
use crate::math;

/// Elements of [`Element::load_two`].
const TWO: usize = 2 * LANES;

/// Keys, or their values, that are gone through at once.
const KEYS: usize = 4;

pub(super) fn scratch(op: &ops::Attention) -> Scratch {
    // The query and scores.
    let own = [op.cache.head_dim, op.cache.positions].map(|elements| elements.next_multiple_of(LANES));
    Scratch { shared: 0, own: own.into_iter().sum() }
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
        (row.slot != NO_SLOT).then(|| {
            op.cache.check(&row);
            row
        })
    };
    let cached = |unit: usize, row: Row| {
        let at = op.cache.at(op.layer, row.slot as usize, unit % heads, 0);
        let bytes = (row.position as usize + 1) * head_dim * size_of::<T>();
        Cached { k: k.wrapping_add(at).cast(), v: v.wrapping_add(at).cast(), bytes }
    };
    let mut asked_for = None;
    cx.member.deal_streams(units, 1..=1, |range, next| {
        let unit = range.start;
        let Some(row) = row_of(unit) else { return };
        let keys = row.position as usize + 1;
        let here = cached(unit, row);
        if asked_for != Some(unit) {
            Ahead::begin(cx.isa, here);
        }
        asked_for = Some(next);
        let next_row = if next < units { row_of(next) } else { None };
        let next = next_row.map(|row| cached(next, row));
        let channels = unit / heads * dim + unit % heads * head_dim;
        // SAFETY: the row is checked; its head's part of `out` is this member's.
        unsafe {
            let one = Head {
                out: cx.buffer::<f32>(op.out).add(channels),
                q: cx.buffer::<f32>(op.q).add(channels),
                ordered: cx.own_scratch(),
                scores: cx.own_scratch().add(head_dim.next_multiple_of(LANES)),
                keys,
                head_dim,
                scale: op.scale(),
                prefix: *cx.buffer::<f32>(op.prefix_log_n).add(row.slot as usize),
                ahead: Ahead::new(cx.isa, keys, here, next),
            };
            attend::<T>(cx.isa, one, here.k.cast(), here.v.cast());
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
    /// room for q in the order of its keys' elements
    ordered: *mut f32,
    /// room for `keys`, rounded up to whole vectors
    scores: *mut f32,
    keys: usize,
    head_dim: usize,
    scale: f32,
    /// added to the score of key 0
    prefix: f32,
    ahead: Option<Ahead>,
}

kernel!(
    /// One head, of keys `k` and values `v`.
    fn attend[T: Element](head: Head, k: *const T, v: *const T) = attend_body
);

#[inline(always)]
unsafe fn attend_body<S: Simd, T: Element>(head: Head, k: *const T, v: *const T) {
    let Head { out, q, ordered, scores, keys, head_dim, scale, prefix, ahead } = head;
    // SAFETY: k and v hold `keys` rows of head_dim, q and out one, scores room for all keys.
    unsafe {
        order::<T>(ordered, q, head_dim);
        let mut j = 0;
        while j + KEYS <= keys {
            if let Some(ahead) = ahead {
                ahead.ask::<S>(j, KEYS, head_dim * size_of::<T>());
            }
            let sums = products::<S, T, KEYS>(ordered, k.add(j * head_dim), head_dim);
            for (i, sum) in S::reduce_add_4(sums).into_iter().enumerate() {
                *scores.add(j + i) = sum * scale;
            }
            j += KEYS;
        }
        for j in j..keys {
            if let Some(ahead) = ahead {
                ahead.ask::<S>(j, 1, head_dim * size_of::<T>());
            }
            let [sum] = products::<S, T, 1>(ordered, k.add(j * head_dim), head_dim);
            *scores.add(j) = S::reduce_add(sum) * scale;
        }
        *scores += prefix;
        finish::<S, T>(out, scores, keys, v, (head_dim, head_dim), ahead);
    }
}

/// out[c] = Σ_j softmax_j(scores) * v[j, c] of one head, where rows of `v` are `stride` elements apart; the first
/// vectors' channels are what requests go `ahead` of.
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
    mut ahead: Option<Ahead>,
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
        while c + 2 * TWO <= head_dim {
            mix::<S, T, 2>(out.add(c), v.add(c), &scores[..keys], stride, share, ahead.take());
            c += 2 * TWO;
        }
        while c + TWO <= head_dim {
            mix::<S, T, 1>(out.add(c), v.add(c), &scores[..keys], stride, share, ahead.take());
            c += TWO;
        }
        while c < head_dim {
            let count = LANES.min(head_dim - c);
            let ahead = ahead.take();
            let mut sum = S::splat(0.0);
            for (j, weight) in scores[..keys].iter().enumerate() {
                if let Some(ahead) = ahead {
                    ahead.ask::<S>(keys + j, 1, stride * size_of::<T>());
                }
                let v = v.add(j * stride + c);
                let v = if count < LANES { T::load_partial::<S>(v, count) } else { T::load::<S>(v) };
                sum = S::fma(S::splat(*weight), v, sum);
            }
            let (out, sum) = (out.add(c), S::mul(sum, share));
            if count < LANES {
                S::store_partial(out, sum, count)
            } else {
                S::store(out, sum)
            }
            c += count;
        }
    }
}

/// out[c] = share * Σ_j weight[j] * v[j, c] for `TWOS` times 32 channels.
#[inline(always)]
unsafe fn mix<S: Simd, T: Element, const TWOS: usize>(
    out: *mut f32,
    v: *const T,
    weights: &[f32],
    stride: usize,
    share: S::V,
    ahead: Option<Ahead>,
) {
    // SAFETY: as `finish`.
    unsafe {
        let keys = weights.len();
        let mut sums = [[S::splat(0.0); 2]; TWOS];
        for (group, weights) in weights.chunks(KEYS).enumerate() {
            let first = group * KEYS;
            if let Some(ahead) = ahead {
                ahead.ask::<S>(keys + first, weights.len(), stride * size_of::<T>());
            }
            let v = v.add(first * stride);
            // A length that is known needs no loop.
            match <&[f32; KEYS]>::try_from(weights) {
                Ok(weights) => add_values::<S, T, TWOS>(&mut sums, v, weights, stride),
                Err(_) => add_values::<S, T, TWOS>(&mut sums, v, weights, stride),
            }
        }
        for (i, [first, second]) in sums.into_iter().enumerate() {
            let mut lanes = [0.0; TWO];
            S::store(lanes.as_mut_ptr(), S::mul(first, share));
            S::store(lanes.as_mut_ptr().add(LANES), S::mul(second, share));
            for c in 0..TWO {
                *out.add(i * TWO + c) = lanes[T::place(c)];
            }
        }
    }
}

/// sums[c] += Σ_j weight[j] * v[j, c]
#[inline(always)]
unsafe fn add_values<S: Simd, T: Element, const TWOS: usize>(
    sums: &mut [[S::V; 2]; TWOS],
    v: *const T,
    weights: &[f32],
    stride: usize,
) {
    // SAFETY: as `finish`.
    unsafe {
        for (j, weight) in weights.iter().enumerate() {
            let weight = S::splat(*weight);
            for (i, [first, second]) in sums.iter_mut().enumerate() {
                let v = T::load_two::<S>(v.add(j * stride + i * TWO));
                *first = S::fma(weight, v[0], *first);
                *second = S::fma(weight, v[1], *second);
            }
        }
    }
}

/// A query in the order in which [`Element::load_two`] brings keys of it.
///
/// # Safety
/// Both hold `head_dim` elements.
#[inline(always)]
unsafe fn order<T: Element>(to: *mut f32, q: *const f32, head_dim: usize) {
    let whole = head_dim / TWO * TWO;
    // SAFETY: the caller's.
    unsafe {
        for c in 0..whole {
            *to.add(c / TWO * TWO + T::place(c % TWO)) = *q.add(c);
        }
        to.add(whole).copy_from_nonoverlapping(q.add(whole), head_dim - whole);
    }
}

/// The sixteen partial sums of Σ_c q[c] * k[c] for each of `COUNT` rows of `head_dim` elements, of which `q` holds
/// those of whole pairs of vectors in the order of [`Element::place`]: a lane takes its own of each vector, in
/// ascending order.
///
/// # Safety
/// q holds `head_dim` elements, k as many for each key.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, T: Element, const COUNT: usize>(
    q: *const f32,
    k: *const T,
    head_dim: usize,
) -> [S::V; COUNT] {
    let whole = head_dim / TWO * TWO;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [S::splat(0.0); COUNT];
        for at in (0..whole).step_by(TWO) {
            let q = [S::load(q.add(at)), S::load(q.add(at + LANES))];
            for (i, sum) in sums.iter_mut().enumerate() {
                let k = T::load_two::<S>(k.add(i * head_dim + at));
                *sum = S::fma(q[1], k[1], S::fma(q[0], k[0], *sum));
            }
        }
        for at in (whole..head_dim).step_by(LANES) {
            let count = LANES.min(head_dim - at);
            let (q, k) = (q.add(at), k.add(at));
            if count < LANES {
                let q = S::load_partial(q, count);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(q, T::load_partial::<S>(k.add(i * head_dim), count), *sum);
                }
            } else {
                let q = S::load(q);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(q, T::load::<S>(k.add(i * head_dim)), *sum);
                }
            }
        }
        sums
    }
}

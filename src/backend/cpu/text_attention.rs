//! Matches `graph::ops::text_attention`.
//!
//! A row's scores are computed for its sequence's keys in order, so what a row gives depends on its own
//! sequence alone.

use super::attention::{finish, products};
use super::simd::{LANES, Simd, kernel};
use super::{Context, Scratch};
use crate::graph::{Row, ops};

pub(super) fn scratch(op: &ops::TextAttention) -> Scratch {
    Scratch { shared: 0, own: op.tokens.next_multiple_of(LANES) }
}

pub(super) fn run(op: &ops::TextAttention, cx: &Context<'_>) {
    let (count, heads, dim) = (cx.extent.rows, op.n_head, op.dim());
    let rows = cx.buffer::<Row>(op.rows);
    let bias = cx.weight(op.bias);
    assert!(bias.len().is_multiple_of(heads), "a bias per head and bucket");
    cx.member.deal(count * heads, heads, |range| {
        // SAFETY: the table holds this run's rows, which nobody writes meanwhile.
        let rows = unsafe { std::slice::from_raw_parts(rows, count) };
        for unit in range {
            let (r, head) = (unit / heads, unit % heads);
            let keys = Row::sequence(rows, r);
            assert!(keys.len() <= op.tokens, "a sequence of {} rows, the plan has room for {}", keys.len(), op.tokens);
            let channels = head * op.head_dim;
            // SAFETY: all buffers are (R, dim) by the graph and the keys rows of this run; distances within
            // `tokens` lie inside the table of buckets; (r, head) of `out` is this member's.
            unsafe {
                let buckets = cx.weight(op.buckets).ptr::<f32>().add(op.tokens - 1 + keys.start - r);
                let one = Head {
                    out: cx.buffer::<f32>(op.out).add(r * dim + channels),
                    q: cx.buffer::<f32>(op.q).add(r * dim + channels),
                    k: cx.buffer::<f32>(op.k).add(keys.start * dim + channels),
                    v: cx.buffer::<f32>(op.v).add(keys.start * dim + channels),
                    scores: cx.own_scratch(),
                    bias: bias.ptr::<f32>().add(head),
                    buckets,
                    keys: keys.len(),
                    stride: dim,
                    heads,
                    head_dim: op.head_dim,
                };
                attend(cx.isa, one);
            }
        }
    });
}

/// One head of one row.
struct Head {
    /// (D)
    out: *mut f32,
    /// (D)
    q: *const f32,
    /// rows of D, `stride` apart
    k: *const f32,
    /// rows of D, `stride` apart
    v: *const f32,
    /// room for all keys, rounded up to whole vectors
    scores: *mut f32,
    /// this head's bias of bucket b at b * heads
    bias: *const f32,
    /// the bucket of each key
    buckets: *const f32,
    keys: usize,
    stride: usize,
    heads: usize,
    head_dim: usize,
}

kernel!(fn attend(head: Head) = attend_body);

#[inline(always)]
unsafe fn attend_body<S: Simd>(head: Head) {
    let Head { out, q, k, v, scores, bias, buckets, keys, stride, heads, head_dim } = head;
    // SAFETY: as the fields say.
    unsafe {
        for j in 0..keys {
            let bias = *bias.add(*buckets.add(j) as usize * heads);
            let [sum] = products::<S, f32, 1>(q, k.add(j * stride), head_dim);
            *scores.add(j) = S::reduce_add(sum) + bias;
        }
        finish::<S, f32>(out, scores, keys, v, (head_dim, stride), None);
    }
}

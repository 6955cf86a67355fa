//! Matches `graph::ops::spatial_attention`.
//!
//! Keys and values are packed into panels once per image; then blocks of queries go their own way. Scores
//! of a block lie (panel of keys, query, key), so they are an operand of the second product as they are.

use super::panels::{self, Rows, WIDTH};
use super::simd::{LANES, Simd, kernel};
use super::{Context, Scratch};
use crate::graph::ops::SpatialAttention;
use crate::math;

/// Queries of a block.
const QUERIES: usize = 16;

/// Elements of the packed keys; the packed values follow.
fn packed_keys(op: &SpatialAttention) -> usize {
    op.pixels.next_multiple_of(WIDTH) * op.channels
}

pub(super) fn scratch(op: &SpatialAttention) -> Scratch {
    let values = op.pixels * op.channels.next_multiple_of(WIDTH);
    Scratch { shared: packed_keys(op) + values, own: QUERIES * (op.pixels.next_multiple_of(WIDTH) + WIDTH) }
}

pub(super) fn run(op: &SpatialAttention, cx: &Context<'_>) {
    let (pixels, c) = (op.pixels, op.channels);
    let (key_panels, value_panels) = (pixels.div_ceil(WIDTH), c.div_ceil(WIDTH));
    let keys = cx.shared_scratch();
    let values = keys.wrapping_add(packed_keys(op));
    for image in 0..cx.extent.rows {
        let q = cx.buffer::<f32>(op.qkv).wrapping_add(image * pixels * 3 * c);
        let (k, v) = (q.wrapping_add(c), q.wrapping_add(2 * c));
        cx.member.deal(key_panels + value_panels, 1, |range| {
            for panel in range {
                // SAFETY: `qkv` holds (pixels, 3 C) per image, the scratch all panels; this one is this member's.
                unsafe {
                    if panel < key_panels {
                        pack_keys(keys.add(panel * c * WIDTH), k, panel, op);
                    } else {
                        let panel = panel - key_panels;
                        pack_values(values.add(panel * pixels * WIDTH), v, panel, op);
                    }
                }
            }
        });
        cx.member.deal(pixels.div_ceil(QUERIES), 1, |range| {
            for block in range {
                let first = block * QUERIES;
                let count = QUERIES.min(pixels - first);
                let q = Rows { at: q.wrapping_add(first * 3 * c), stride: 3 * c, count };
                // SAFETY: as above; the block's outputs are this member's.
                unsafe {
                    let out = cx.buffer::<f32>(op.out).add((image * pixels + first) * c);
                    attend(cx.isa, out, q, (keys, values), cx.own_scratch(), op);
                }
            }
        });
    }
}

/// Keys, C of a pixel's 3 C, to (C, WIDTH): the panel's keys side by side, zero beyond the last.
unsafe fn pack_keys(to: *mut f32, k: *const f32, panel: usize, op: &SpatialAttention) {
    for lane in 0..WIDTH {
        for c in 0..op.channels {
            let key = panel * WIDTH + lane;
            // SAFETY: the key exists where it is read.
            unsafe { *to.add(c * WIDTH + lane) = if key < op.pixels { *k.add(key * 3 * op.channels + c) } else { 0.0 } }
        }
    }
}

/// Values, likewise, to (pixels, WIDTH): the panel's channels, zero beyond the last.
unsafe fn pack_values(to: *mut f32, v: *const f32, panel: usize, op: &SpatialAttention) {
    let count = WIDTH.min(op.channels - panel * WIDTH);
    for key in 0..op.pixels {
        // SAFETY: `count` channels exist from the panel's first on.
        unsafe {
            let row = to.add(key * WIDTH);
            row.write_bytes(0, WIDTH);
            row.copy_from_nonoverlapping(v.add(key * 3 * op.channels + panel * WIDTH), count);
        }
    }
}

kernel!(fn attend(out: *mut f32, q: Rows, packed: (*const f32, *const f32), scratch: *mut f32, op: &SpatialAttention) = attend_body);

#[inline(always)]
unsafe fn attend_body<S: Simd>(
    out: *mut f32,
    q: Rows,
    (keys, values): (*const f32, *const f32),
    scratch: *mut f32,
    op: &SpatialAttention,
) {
    let (pixels, c) = (op.pixels, op.channels);
    let key_panels = pixels.div_ceil(WIDTH);
    // SAFETY: the scratch holds QUERIES rows of scores, then of one panel's sums; the rest is `run`'s.
    unsafe {
        let sums = scratch.add(key_panels * q.count * WIDTH);
        for panel in 0..key_panels {
            let scores = scratch.add(panel * q.count * WIDTH);
            panels::multiply::<S, f32>(scores, q, keys.add(panel * c * WIDTH), c, true, false);
        }
        let mut shares = [0.0; QUERIES];
        for (row, share) in shares.iter_mut().enumerate().take(q.count) {
            *share = 1.0 / soften(scratch.add(row * WIDTH), q.count * WIDTH, op);
        }
        for panel in 0..c.div_ceil(WIDTH) {
            for keys in 0..key_panels {
                let rows = Rows { at: scratch.add(keys * q.count * WIDTH), stride: WIDTH, count: q.count };
                let weight = values.add((panel * pixels + keys * WIDTH) * WIDTH);
                panels::multiply::<S, f32>(sums, rows, weight, WIDTH.min(pixels - keys * WIDTH), keys == 0, false);
            }
            for (row, share) in shares.iter().enumerate().take(q.count) {
                for first in (panel * WIDTH..c.min((panel + 1) * WIDTH)).step_by(LANES) {
                    let to = out.add(row * c + first);
                    let y = S::mul(S::load(sums.add(row * WIDTH + first - panel * WIDTH)), S::splat(*share));
                    if c - first < LANES { S::store_partial(to, y, c - first) } else { S::store(to, y) }
                }
            }
        }
    }
}

/// Scores to exp(score * scale - largest), a panel of keys `skip` elements behind the other; returns their sum.
#[inline(always)]
unsafe fn soften(scores: *mut f32, skip: usize, op: &SpatialAttention) -> f32 {
    let scale = op.scale();
    // SAFETY: every panel of keys has WIDTH scores of this query.
    let panel = |at: usize| unsafe { std::slice::from_raw_parts_mut(scores.add(at * skip), WIDTH) };
    let mut largest = [f32::NEG_INFINITY; WIDTH];
    for at in 0..op.pixels.div_ceil(WIDTH) {
        for ((lane, score), largest) in panel(at).iter_mut().enumerate().zip(&mut largest) {
            *score = if at * WIDTH + lane < op.pixels { *score * scale } else { f32::NEG_INFINITY };
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; WIDTH];
    for at in 0..op.pixels.div_ceil(WIDTH) {
        for (score, sum) in panel(at).iter_mut().zip(&mut sums) {
            *score = math::exp(*score - largest);
            *sum += *score;
        }
    }
    sums.into_iter().sum()
}

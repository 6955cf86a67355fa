//! Matches `graph::ops::prefix_mean`.
//!
//! A scan down the rows, dealt out by channels: each row's mean is the sum so far over its count.

use super::Context;
use crate::graph::{Row, ops};

/// Channels that a member takes at a time: their sums stay in registers or the first cache.
const CHANNELS: usize = 64;

pub(super) fn run(op: &ops::PrefixMean, cx: &Context<'_>) {
    let count = cx.extent.rows;
    let (out, v) = (cx.buffer::<f32>(op.out), cx.buffer::<f32>(op.v));
    let (prefixes, rows) = (cx.buffer::<f32>(op.prefixes), cx.buffer::<Row>(op.rows));
    let room = cx.arena.buffers[op.prefixes.index()].len::<f32>();
    cx.member.deal(op.dim, CHANNELS, |channels| {
        // SAFETY: the table holds this run's rows, which nobody writes meanwhile.
        let rows = unsafe { std::slice::from_raw_parts(rows, count) };
        let (first, width) = (channels.start, channels.len());
        let mut sums = [0f32; CHANNELS];
        let mut placed = 0;
        for (r, row) in rows.iter().enumerate() {
            if row.position == 0 {
                (sums, placed) = ([0f32; CHANNELS], 0);
            }
            assert_eq!(row.position, placed, "row {r}: the rows of a prefix follow one another");
            placed += 1;
            let ends = rows.get(r + 1).is_none_or(|next| next.position == 0);
            let at = op.at(row.slot as usize) + first;
            assert!(!ends || at + width <= room, "{row:?} outside the prefixes");
            // SAFETY: row r of `out` and `v` is `dim` wide, the slot's place was checked; these channels are
            // this member's.
            unsafe {
                let v = std::slice::from_raw_parts(v.add(r * op.dim + first), width);
                let out = std::slice::from_raw_parts_mut(out.add(r * op.dim + first), width);
                for ((sum, v), out) in sums.iter_mut().zip(v).zip(out.iter_mut()) {
                    *sum += v;
                    *out = *sum / placed as f32;
                }
                if ends {
                    std::slice::from_raw_parts_mut(prefixes.add(at), width).copy_from_slice(out);
                }
            }
        }
    });
}

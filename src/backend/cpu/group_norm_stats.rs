//! Matches `graph::ops::group_norm_stats`.
//!
//! A group's patches are summed in f64, in one order: how many pixels they have, how far their means lie from that of
//! the first, and the squares of both. So a large mean costs the variance nothing.

use super::Context;
use crate::graph::ops::{self, GROUPS};

/// Groups that a member takes at a time, patch by patch.
const TOGETHER: usize = 8;

pub(super) fn run(op: &ops::GroupNormStats, cx: &Context<'_>) {
    let (moments, stats) = (cx.buffer::<f32>(op.moments), cx.buffer::<f32>(op.stats));
    cx.member.deal(cx.extent.rows * GROUPS / TOGETHER, 1, |range| {
        for first in range.map(|at| at * TOGETHER) {
            let (image, group) = (first / GROUPS, first % GROUPS);
            // SAFETY: `moments` holds so many elements per image, `stats` GROUPS pairs; these are this member's.
            let (moments, stats) = unsafe {
                let moments = moments.add(image * op.len_moments());
                let (moments, stats) = (std::slice::from_raw_parts(moments, op.len_moments()), stats.add(2 * first));
                (moments, std::slice::from_raw_parts_mut(stats, 2 * TOGETHER))
            };
            join(op, moments, group, stats);
        }
    });
}

/// Mean and 1 / standard deviation of some groups of an image, from `group` on.
fn join(op: &ops::GroupNormStats, moments: &[f32], group: usize, stats: &mut [f32]) {
    let width = op.channels / GROUPS;
    let first: [f64; TOGETHER] = std::array::from_fn(|i| f64::from(moments[(group + i) * width * 2]));
    let (mut away, mut squares) = ([0.0; TOGETHER], [0.0; TOGETHER]);
    let mut before = 0;
    for (patch, channels) in moments.chunks_exact(2 * op.channels).enumerate() {
        let end = op.patches.pixels_before(patch + 1);
        let pixels = (end - before) as f64;
        before = end;
        let channels = &channels[group * width * 2..][..TOGETHER * width * 2];
        for (i, group) in channels.chunks_exact(width * 2).enumerate() {
            let (mut means, mut variances) = (0.0, 0.0);
            for pair in group.chunks_exact(2) {
                let from_first = f64::from(pair[0]) - first[i];
                means += from_first;
                variances += from_first * from_first + f64::from(pair[1]);
            }
            away[i] += pixels * means;
            squares[i] += pixels * variances;
        }
    }
    let count = (op.patches.pixels() * width) as f64;
    for (i, stats) in stats.chunks_exact_mut(2).enumerate() {
        let (mean, variance) = (away[i] / count, (squares[i] - away[i] * away[i] / count).max(0.0) / count);
        stats[0] = (first[i] + mean) as f32;
        stats[1] = (1.0 / (variance + f64::from(op.eps)).sqrt()) as f32;
    }
}

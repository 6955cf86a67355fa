//! Matches `graph::ops::group_norm_stats`.
//!
//! A few pixels at a time: their mean per channel, then what is left around it and its squares, in f32 and
//! short; what is left corrects both, and all is joined in f64 by Chan's formula. So a large mean costs the
//! variance nothing, and the order depends on the image's size alone.

use std::ops::Range;

use super::simd::{LANES, Simd, kernel};
use super::{Context, Scratch};
use crate::graph::Graph;
use crate::graph::ops::{self, GROUPS};

/// Pixels that a member takes at a time.
const BLOCK: usize = 1024;

/// Vectors of channels that are taken side by side: together a multiple of GROUPS, as the channels are.
const VECTORS: usize = GROUPS / LANES;

/// Pixels whose sums stay in f32.
const RUN: usize = 32;

/// Mean and sum of squares around it, of some values.
#[derive(Clone, Copy, Default)]
struct Moments {
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds to `count` values others, `more` of them.
    #[inline(always)]
    fn join(&mut self, count: f64, other: Self, more: f64) {
        let (away, share) = (other.mean - self.mean, more / (count + more));
        self.mean += away * share;
        self.squares += other.squares + away * away * count * share;
    }
}

/// Moments per channel and block of an image, in f32 elements.
pub(super) fn scratch(op: &ops::GroupNormStats, graph: &Graph) -> Scratch {
    let moments = graph.max().rows * op.pixels.div_ceil(BLOCK) * op.channels;
    Scratch { shared: moments * size_of::<Moments>() / size_of::<f32>(), own: 0 }
}

pub(super) fn run(op: &ops::GroupNormStats, cx: &Context<'_>) {
    let (x, stats) = (cx.buffer::<f32>(op.x), cx.buffer::<f32>(op.stats));
    let moments = cx.shared_scratch().cast::<Moments>();
    let blocks = op.pixels.div_ceil(BLOCK);
    cx.member.deal(cx.extent.rows * blocks, 1, |range| {
        for at in range {
            let pixels = at % blocks * BLOCK..(at % blocks * BLOCK + BLOCK).min(op.pixels);
            // SAFETY: x holds `pixels` * `channels` per image; the block's moments are this member's.
            unsafe {
                let image = x.add(at / blocks * op.pixels * op.channels);
                block(cx.isa, moments.add(at * op.channels), image, pixels, op.channels);
            }
        }
    });
    let width = op.channels / GROUPS;
    cx.member.deal(cx.extent.rows * GROUPS, GROUPS, |range| {
        for at in range {
            let (image, group) = (at / GROUPS, at % GROUPS);
            let (mut whole, mut count) = (Moments::default(), 0.0);
            for block in 0..blocks {
                let more = BLOCK.min(op.pixels - block * BLOCK) as f64;
                for c in group * width..(group + 1) * width {
                    // SAFETY: all blocks' moments are there since the last barrier.
                    whole.join(count, unsafe { *moments.add((image * blocks + block) * op.channels + c) }, more);
                    count += more;
                }
            }
            let rstd = 1.0 / (whole.squares / count + f64::from(op.eps)).sqrt();
            // SAFETY: `stats` holds GROUPS pairs per image; this one is this member's.
            unsafe {
                *stats.add(2 * at) = whole.mean as f32;
                *stats.add(2 * at + 1) = rstd as f32;
            }
        }
    });
}

kernel!(fn block(out: *mut Moments, image: *const f32, pixels: Range<usize>, channels: usize) = block_body);

/// The moments of every channel over `pixels`.
#[inline(always)]
unsafe fn block_body<S: Simd>(out: *mut Moments, image: *const f32, pixels: Range<usize>, channels: usize) {
    // SAFETY: `image` holds the pixels, `out` one element per channel; channels are a multiple of GROUPS, so of LANES.
    unsafe {
        let out = std::slice::from_raw_parts_mut(out, channels);
        out.fill(Moments::default());
        for first in pixels.clone().step_by(RUN) {
            let run = RUN.min(pixels.end - first);
            let share = S::splat(1.0 / run as f32);
            for (c, out) in out.chunks_exact_mut(GROUPS).enumerate() {
                let x = image.add(first * channels + c * GROUPS);
                let mut sums = [S::splat(0.0); VECTORS];
                for p in 0..run {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = S::add(*sum, S::load(x.add(p * channels + v * LANES)));
                    }
                }
                let mut lanes = [[0.0f32; GROUPS]; 3];
                let (mut rests, mut squares) = ([S::splat(0.0); VECTORS], [S::splat(0.0); VECTORS]);
                for p in 0..run {
                    for v in 0..VECTORS {
                        let away = S::sub(S::load(x.add(p * channels + v * LANES)), S::mul(sums[v], share));
                        rests[v] = S::add(rests[v], away);
                        squares[v] = S::fma(away, away, squares[v]);
                    }
                }
                for v in 0..VECTORS {
                    for (lanes, x) in lanes.iter_mut().zip([S::mul(sums[v], share), rests[v], squares[v]]) {
                        S::store(lanes.as_mut_ptr().add(v * LANES), x);
                    }
                }
                let [means, rests, squares] = lanes;
                let (count, run) = ((first - pixels.start) as f64, run as f64);
                for (i, out) in out.iter_mut().enumerate() {
                    let rest = f64::from(rests[i]);
                    let mean = f64::from(means[i]) + rest / run;
                    out.join(count, Moments { mean, squares: f64::from(squares[i]) - rest * rest / run }, run);
                }
            }
        }
    }
}

//! What a convolution leaves for the GroupNorm behind it: mean and variance of each channel of each patch.
//!
//! A patch's mean comes first, then what is left around it and its squares; what is left corrects both. So a large mean
//! costs the variance nothing.

use crate::backend::cpu::Context;
use crate::backend::cpu::simd::{LANES, Simd, kernel};
use crate::graph::ops::{Conv2d, GROUPS, Patches};

/// Vectors of channels that are taken side by side: together a multiple of GROUPS, as the channels are.
const VECTORS: usize = GROUPS / LANES;

/// Patches that a member takes at a time.
const PATCHES: usize = 16;

/// Reads the whole result, once all members have written theirs.
pub fn run(op: &Conv2d, cx: &Context<'_>, moments: *mut f32) {
    assert!(op.channels_out.is_multiple_of(GROUPS), "moments of {} channels", op.channels_out);
    let (patches, out) = (op.patches(), cx.buffer::<f32>(op.out));
    let count = patches.count();
    cx.member.deal(cx.extent.rows * count, PATCHES, |range| {
        for at in range {
            let (image, patch) = (at / count, at % count);
            // SAFETY: `out` and `moments` have the sizes that the graph gave them; the patch's moments are this member's.
            unsafe {
                let to = moments.add(at * op.channels_out * 2);
                of_patch(cx.isa, to, out.add(image * op.len_out()), &patches, patch, op.channels_out);
            }
        }
    });
}

kernel!(fn of_patch(to: *mut f32, image: *const f32, patches: &Patches, patch: usize, channels: usize) = of_patch_body);

#[inline(always)]
unsafe fn of_patch_body<S: Simd>(to: *mut f32, image: *const f32, patches: &Patches, patch: usize, channels: usize) {
    let pixels = patches.pixels_before(patch + 1) - patches.pixels_before(patch);
    let (share, skip) = (1.0 / pixels as f32, patches.repeat * channels);
    // SAFETY: the patch's pixels are in the image, and `to` holds two elements per channel; channels are a multiple of
    // GROUPS, so of LANES.
    unsafe {
        for c in (0..channels).step_by(GROUPS) {
            let mut means = [S::splat(0.0); VECTORS];
            for run in patches.rows(patch) {
                let x = image.add(run.first * channels + c);
                for p in 0..run.count {
                    for (v, mean) in means.iter_mut().enumerate() {
                        *mean = S::add(*mean, S::load(x.add(p * skip + v * LANES)));
                    }
                }
            }
            for mean in &mut means {
                *mean = S::mul(*mean, S::splat(share));
            }
            let (mut rests, mut squares) = ([S::splat(0.0); VECTORS], [S::splat(0.0); VECTORS]);
            for run in patches.rows(patch) {
                let x = image.add(run.first * channels + c);
                for p in 0..run.count {
                    for v in 0..VECTORS {
                        let away = S::sub(S::load(x.add(p * skip + v * LANES)), means[v]);
                        rests[v] = S::add(rests[v], away);
                        squares[v] = S::fma(away, away, squares[v]);
                    }
                }
            }
            let mut lanes = [[0.0f32; GROUPS]; 2];
            for v in 0..VECTORS {
                let rest = S::mul(rests[v], S::splat(share));
                let variance = S::sub(S::mul(squares[v], S::splat(share)), S::mul(rest, rest));
                S::store(lanes[0].as_mut_ptr().add(v * LANES), S::add(means[v], rest));
                S::store(lanes[1].as_mut_ptr().add(v * LANES), variance);
            }
            for (i, (mean, variance)) in lanes[0].iter().zip(&lanes[1]).enumerate() {
                *to.add(2 * (c + i)) = *mean;
                *to.add(2 * (c + i) + 1) = variance.max(0.0);
            }
        }
    }
}

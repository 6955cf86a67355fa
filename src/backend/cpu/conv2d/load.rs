//! What a block sees of its input: normalized, activated, with the zero border, in the member's scratch.

use std::ops::Range;

use crate::backend::cpu::Context;
use crate::backend::cpu::panels::Factor;
use crate::backend::cpu::simd::{LANES, Simd, map};
use crate::graph::ops::{Conv2d, GROUPS};
use crate::math;

/// One input image and what happens to it while it is read.
pub struct Source {
    /// (H, W, C)
    x: *const f32,
    size: (usize, usize),
    channels: usize,
    /// 1 where the map that the taps see has two pixels per pixel of `x`, along one side, else 0.
    doubled: u32,
    /// Factors (C) and summands (C) of the normalization.
    scale_shift: Option<*const f32>,
    silu: bool,
}

impl Source {
    /// Image `image` of the op's input; folds statistics and weights of the normalization into the
    /// first 2 C elements of the member's scratch.
    pub fn new(op: &Conv2d, cx: &Context<'_>, image: usize) -> Self {
        let channels = op.channels_in;
        let scale_shift = op.norm.map(|norm| {
            let folded = cx.own_scratch();
            // SAFETY: `stats` holds GROUPS pairs per image, the weights C elements, the scratch 2 C.
            unsafe {
                let stats = cx.buffer::<f32>(norm.stats).add(image * GROUPS * 2);
                let (weight, bias) = (cx.weight(norm.weight).ptr::<f32>(), cx.weight(norm.bias).ptr::<f32>());
                for c in 0..channels {
                    let group = c * GROUPS / channels;
                    let (mean, rstd) = (*stats.add(2 * group), *stats.add(2 * group + 1));
                    let scale = rstd * *weight.add(c);
                    *folded.add(c) = scale;
                    *folded.add(channels + c) = (-mean).mul_add(scale, *bias.add(c));
                }
            }
            folded.cast_const()
        });
        Self {
            x: cx.buffer::<f32>(op.x).wrapping_add(image * op.len_in()),
            size: op.size,
            channels,
            doubled: op.kernel.repeat().ilog2(),
            scale_shift,
            silu: op.norm.is_some_and(|norm| norm.silu),
        }
    }

    /// The map as it lies in memory, each pixel once.
    pub fn undoubled(&self) -> Self {
        Self { doubled: 0, ..*self }
    }

    /// Where the channels of pixel (y, x) of the map that the taps see lie, if it is none of the zeros around.
    #[inline(always)]
    pub fn pixel(&self, y: isize, x: isize) -> Option<*const f32> {
        // Left of the map and above it wraps to huge.
        let (y, x) = (y as usize >> self.doubled, x as usize >> self.doubled);
        let at = || (y * self.size.1 + x) * self.channels;
        (y < self.size.0 && x < self.size.1).then(|| self.x.wrapping_add(at()))
    }

    /// The channels of `pixel` from `c` on, at most LANES, behind normalization and activation; zeros behind the last.
    ///
    /// # Safety
    /// The pixel is one of the map, and has channel `c`.
    #[inline(always)]
    pub unsafe fn vector<S: Simd>(&self, pixel: *const f32, c: usize) -> S::V {
        let count = self.channels - c;
        // SAFETY: `count` channels are there from `c` on, of the pixel as of factors and summands.
        unsafe {
            let mut v = load::<S>(pixel.add(c), count);
            if let Some(scale) = self.scale_shift {
                let shift = scale.add(self.channels);
                v = S::fma(v, load::<S>(scale.add(c), count), load::<S>(shift.add(c), count));
            }
            if self.silu { map::<S>(v, math::silu) } else { v }
        }
    }
}

/// LANES elements, or `count` of them.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if count < LANES { S::load_partial(from, count) } else { S::load(from) } }
}

/// Copies the pixels `top..top + height`, `left..left + width` of the map that the taps see, of each
/// only the channels `part`, to `to` (height, width, part) as factors; what lies outside of the map is zero.
///
/// # Safety
/// `to` has that room, and that of LANES channels more if `part` is of no whole vectors; the channels exist.
#[inline(always)]
pub unsafe fn copy<S: Simd, T: Factor>(
    to: *mut T,
    source: &Source,
    (top, left): (isize, isize),
    (height, width): (usize, usize),
    part: Range<usize>,
) {
    for i in 0..height {
        for j in 0..width {
            let pixel = source.pixel(top + i as isize, left + j as isize);
            // SAFETY: pixel (i, j) of `to`. What is written behind its channels, the next pixel overwrites.
            unsafe {
                let to = to.add((i * width + j) * part.len() / T::PER);
                for c in part.clone().step_by(LANES) {
                    let v = match pixel {
                        Some(pixel) => source.vector::<S>(pixel, c),
                        None => S::splat(0.0),
                    };
                    T::store::<S>(to, c - part.start, v);
                }
            }
        }
    }
}

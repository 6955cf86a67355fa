//! What a block sees of its input: normalized, activated, with the zero border, in the member's scratch.

use std::ops::Range;

use crate::backend::cpu::Context;
use crate::backend::cpu::simd::{LANES, Simd};
use crate::graph::ops::{Conv2d, GROUPS};
use crate::math;

/// One input image and what happens to it while it is read.
pub struct Source {
    /// (H, W, C)
    x: *const f32,
    size: (usize, usize),
    channels: usize,
    /// Pixels of the map that the taps see per pixel of `x`, along one side.
    repeat: usize,
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
            repeat: op.kernel.repeat(),
            scale_shift,
            silu: op.norm.is_some_and(|norm| norm.silu),
        }
    }

    /// The map as it lies in memory, each pixel once.
    pub fn without_repeat(&self) -> Self {
        Self { repeat: 1, ..*self }
    }
}

/// Copies the pixels `top..top + height`, `left..left + width` of the map that the taps see, of each
/// only the channels `part`, to `to` (height, width, part); what lies outside of the map is zero.
///
/// # Safety
/// `to` has that room; the channels exist.
#[inline(always)]
pub unsafe fn copy<S: Simd>(
    to: *mut f32,
    source: &Source,
    (top, left): (isize, isize),
    (height, width): (usize, usize),
    part: Range<usize>,
) {
    let len = part.len();
    for i in 0..height {
        // SAFETY: row i of `to`; pixels of `x` are read only inside of the map.
        unsafe {
            let row = to.add(i * width * len);
            let y = (top + i as isize) as usize;
            if y >= source.size.0 * source.repeat {
                row.write_bytes(0, width * len);
                continue;
            }
            for j in 0..width {
                let x = (left + j as isize) as usize;
                let pixel = row.add(j * len);
                if x >= source.size.1 * source.repeat {
                    pixel.write_bytes(0, len);
                    continue;
                }
                let at = (y / source.repeat * source.size.1 + x / source.repeat) * source.channels + part.start;
                match source.scale_shift {
                    Some(scale) => {
                        let scale = scale.add(part.start);
                        normalize::<S>(pixel, source.x.add(at), scale, scale.add(source.channels), len);
                    }
                    None => pixel.copy_from_nonoverlapping(source.x.add(at), len),
                }
            }
            if source.silu {
                // The border's zeros stay: silu(0) = 0.
                std::slice::from_raw_parts_mut(row, width * len).iter_mut().for_each(|x| *x = math::silu(*x));
            }
        }
    }
}

/// to[c] = x[c] * scale[c] + shift[c]
#[inline(always)]
unsafe fn normalize<S: Simd>(to: *mut f32, x: *const f32, scale: *const f32, shift: *const f32, len: usize) {
    let whole = len / LANES * LANES;
    // SAFETY: all four hold `len` elements.
    unsafe {
        for c in (0..whole).step_by(LANES) {
            S::store(to.add(c), S::fma(S::load(x.add(c)), S::load(scale.add(c)), S::load(shift.add(c))));
        }
        if whole < len {
            let n = len - whole;
            let load = |from: *const f32| S::load_partial(from.add(whole), n);
            S::store_partial(to.add(whole), S::fma(load(x), load(scale), load(shift)), n);
        }
    }
}

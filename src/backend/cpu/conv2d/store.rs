//! Where a block's sums go: bias, residual, and for the last convolution the cut to bytes.

use crate::backend::cpu::Context;
use crate::backend::cpu::panels::WIDTH;
use crate::backend::cpu::simd::{LANES, Simd};
use crate::graph::ops::{Conv2d, Store};

/// One output image.
pub struct Sink {
    out: Out,
    /// (H', W', N)
    residual: Option<*const f32>,
    /// (N)
    bias: *const f32,
    /// W'
    width: usize,
    /// N
    channels: usize,
}

#[derive(Clone, Copy)]
enum Out {
    F32(*mut f32),
    Rgb8(*mut u8),
}

impl Sink {
    /// Image `image` of the op's output.
    pub fn new(op: &Conv2d, cx: &Context<'_>, image: usize) -> Self {
        let at = image * op.len_out();
        Self {
            out: match op.store {
                Store::Plain => Out::F32(cx.buffer::<f32>(op.out).wrapping_add(at)),
                Store::Rgb8 => Out::Rgb8(cx.buffer::<u8>(op.out).wrapping_add(at)),
            },
            residual: op.residual.map(|id| cx.buffer::<f32>(id).wrapping_add(at).cast_const()),
            bias: cx.weight(op.bias).ptr(),
            width: op.kernel.output(op.size).1,
            channels: op.channels_out,
        }
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes of a pixel.
    pub fn pixel_bytes(&self) -> usize {
        match self.out {
            Out::F32(_) => self.channels * size_of::<f32>(),
            Out::Rgb8(_) => self.channels,
        }
    }

    /// Where channel `n` of pixel (y, x) lies, or would lie if it were one of the map.
    #[inline(always)]
    pub fn place(&self, (y, x): (usize, usize), n: usize) -> *const u8 {
        let at = (y * self.width + x) * self.channels + n;
        match self.out {
            Out::F32(out) => out.wrapping_add(at).cast(),
            Out::Rgb8(out) => out.wrapping_add(at),
        }
    }

    /// Writes the channels from `n` on, at most LANES, of pixel (y, x): `sums` and what is added to them.
    ///
    /// # Safety
    /// The pixel and channel `n` exist, and nobody else has them.
    #[inline(always)]
    pub unsafe fn put<S: Simd>(&self, (y, x): (usize, usize), n: usize, sums: S::V) {
        let at = (y * self.width + x) * self.channels + n;
        let count = LANES.min(self.channels - n);
        // SAFETY: `count` channels from `n` on exist in the output, the residual and the bias.
        unsafe {
            if count == LANES {
                let mut y = S::add(sums, S::load(self.bias.add(n)));
                if let Some(residual) = self.residual {
                    y = S::add(y, S::load(residual.add(at)));
                }
                match self.out {
                    Out::F32(out) => S::store(out.add(at), y),
                    Out::Rgb8(out) => put_bytes::<S>(out.add(at), y, count),
                }
            } else {
                let mut y = S::add(sums, S::load_partial(self.bias.add(n), count));
                if let Some(residual) = self.residual {
                    y = S::add(y, S::load_partial(residual.add(at), count));
                }
                match self.out {
                    Out::F32(out) => S::store_partial(out.add(at), y, count),
                    Out::Rgb8(out) => put_bytes::<S>(out.add(at), y, count),
                }
            }
        }
    }
}

/// The first `count` lanes as bytes.
#[inline(always)]
unsafe fn put_bytes<S: Simd>(out: *mut u8, y: S::V, count: usize) {
    let mut lanes = [0.0; LANES];
    // SAFETY: as `Sink::put`.
    unsafe {
        S::store(lanes.as_mut_ptr(), y);
        for (i, y) in lanes[..count].iter().enumerate() {
            *out.add(i) = (127.5 * y + 128.0).clamp(0.0, 255.0) as u8;
        }
    }
}

/// First channel of vector `v` of a panel.
pub fn channel(panel: usize, v: usize) -> usize {
    panel * WIDTH + v * LANES
}

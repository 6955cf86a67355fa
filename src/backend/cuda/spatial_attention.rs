//! Matches `graph::ops::spatial_attention`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::ops::SpatialAttention;
use crate::graph::{Elem, Graph};

const WARPS: usize = 8;

/// Keys of a step.
const KEYS: usize = 16 * WARPS;

/// Channels that a warp mixes: as many as there are warps for.
const MAX_CHANNELS: usize = 64 * WARPS;

/// Dynamic shared memory of a block of `rows` pixels: their q, the weights of a step's keys, and for each warp
/// its maximum and its sum. Padded so that rows read together lie in different banks.
fn shared_bytes(rows: usize, channels: usize) -> usize {
    let (query, weights) = (((channels / 8) | 4) * 16, KEYS * 2 + 16);
    rows * (query + weights + 2 * WARPS * size_of::<f32>())
}

impl Lower for SpatialAttention {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        for id in [self.out, self.qkv] {
            let buffer = graph.at(id);
            if buffer.elem != Elem::Bf16 {
                return Err(format!("needs `{}` in bf16, found {}", buffer.name, buffer.elem.name()));
            }
        }
        match self.channels.is_multiple_of(32) && self.channels <= MAX_CHANNELS {
            true => Ok(()),
            false => Err(format!("needs a multiple of 32 channels, at most {MAX_CHANNELS}, found {}", self.channels)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let images = cx.extent.rows;
        // A pixel's bits are the same either way: fewer blocks read k and v less often.
        let (kernel, rows) = match images * self.pixels.div_ceil(32) >= cx.capacity.multiprocessors {
            true => (kernels::SPATIAL_ATTENTION_32, 32),
            false => (kernels::SPATIAL_ATTENTION_16, 16),
        };
        vec![
            Launch::new(kernel, [self.pixels.div_ceil(rows), images, 1], WARPS * 32)
                .shared(shared_bytes(rows, self.channels))
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.qkv))
                .size(self.pixels)
                .size(self.channels)
                .arg(self.scale()),
        ]
    }
}

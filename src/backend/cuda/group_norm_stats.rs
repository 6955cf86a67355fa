//! Matches `graph::ops::group_norm_stats`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::ops::{GROUPS, GroupNormStats};
use crate::graph::{Elem, Graph};

const THREADS: usize = 256;

/// Channels that a thread keeps to; a block has to have a thread for each.
const VECTOR: usize = 8;

/// Elements that a block should have at least, and the most blocks of an image: more would cost the last of them,
/// which reads what all found, more than they save.
const CHUNK_LEN: usize = 8192;
const MAX_CHUNKS: usize = 256;

impl GroupNormStats {
    /// Pixels of a block; a function of the shape alone, because it decides the order of summation.
    fn chunk(&self) -> usize {
        (CHUNK_LEN / self.channels).max(self.pixels.div_ceil(MAX_CHUNKS)).max(1)
    }

    fn chunks(&self) -> usize {
        self.pixels.div_ceil(self.chunk())
    }
}

impl Lower for GroupNormStats {
    fn check(&self, _: &Graph) -> Result<(), String> {
        match self.channels.is_multiple_of(GROUPS) && self.channels <= THREADS * VECTOR {
            true => Ok(()),
            false => Err(format!("needs a multiple of {GROUPS} channels, at most 2048, found {}", self.channels)),
        }
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        graph.max().rows * self.chunks() * GROUPS * 2 * size_of::<f32>()
    }

    fn counters(&self, graph: &Graph) -> usize {
        graph.max().rows
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let kernel = match cx.elem(self.x) {
            Elem::F32 => kernels::GROUP_NORM_STATS_F32,
            _ => kernels::GROUP_NORM_STATS_BF16,
        };
        vec![
            Launch::new(kernel, [self.chunks(), cx.extent.rows, 1], THREADS)
                .arg(cx.buffer(self.stats))
                .arg(cx.scratch)
                .arg(cx.buffer(self.x))
                .arg(cx.counters)
                .size(self.pixels)
                .size(self.channels)
                .size(self.chunk())
                .arg(self.eps),
        ]
    }
}

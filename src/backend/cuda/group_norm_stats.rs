//! Matches `graph::ops::group_norm_stats`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use super::product::check_buffer;
use crate::graph::ops::{GROUPS, GroupNormStats};
use crate::graph::{Elem, Graph};

const THREADS: usize = 256;

/// Channels that a thread keeps to; a block has to have a thread for each.
const VECTOR: usize = 8;

/// Pairs of moments that a block should have at least, and the most blocks of an image: more would cost the last of them,
/// which reads what all found, more than they save.
const CHUNK_LEN: usize = 4096;
const MAX_CHUNKS: usize = 256;

impl GroupNormStats {
    /// Patches of a block; a function of the shape alone, because it decides the order of summation.
    fn chunk(&self) -> usize {
        (CHUNK_LEN / self.channels).max(self.patches.count().div_ceil(MAX_CHUNKS)).max(1)
    }

    fn chunks(&self) -> usize {
        self.patches.count().div_ceil(self.chunk())
    }
}

impl Lower for GroupNormStats {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        check_buffer(graph, self.moments, Elem::F32)?;
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
        vec![
            Launch::new(kernels::GROUP_NORM_STATS, [self.chunks(), cx.extent.rows, 1], THREADS)
                .arg(cx.buffer(self.stats))
                .arg(cx.scratch)
                .arg(cx.buffer(self.moments))
                .arg(cx.counters)
                .size(self.patches.size.0)
                .size(self.patches.size.1)
                .size(self.patches.repeat)
                .size(self.channels)
                .size(self.chunk())
                .arg(self.eps),
        ]
    }
}
